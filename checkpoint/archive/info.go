package archive

import "time"

// Origin describes the node and the programs that made a checkpoint.
type Origin struct {
	Version        int       `json:"version"`
	CheckpointedAt time.Time `json:"checkpointedAt"`
	// Engine is the name and the version of the program that wrote the checkpoint.
	Engine string `json:"engine"`
	// Architecture is the GOARCH of the daemon, for example "amd64".
	Architecture string `json:"architecture"`
	// Kernel is the release of the kernel, as "uname -r" displays it.
	Kernel   string  `json:"kernel"`
	CgroupV2 bool    `json:"cgroupV2"`
	CRIU     string  `json:"criu"` // version of CRIU
	Runtime  Runtime `json:"runtime"`
}

// Runtime is the OCI runtime that called CRIU.
type Runtime struct {
	Handler string `json:"handler"`
	Version string `json:"version,omitempty"`
}

// ContainerInfo describes the container of an archive. It is the content of InfoFile.
type ContainerInfo struct {
	Origin
	Container Container `json:"container"`
	Pod       PodName   `json:"pod"`
}

// Container describes the configuration of the container at the time of the checkpoint.
type Container struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Attempt uint32 `json:"attempt"`
	// ImageRef is the reference of the image in the request. ImageID is the digest of the image config.
	ImageRef       string   `json:"imageRef"`
	ImageID        string   `json:"imageID"`
	Terminal       bool     `json:"terminal"`
	Stdin          bool     `json:"stdin"`
	StdinOnce      bool     `json:"stdinOnce"`
	Args           []string `json:"args"`
	Env            []string `json:"env"`
	Cwd            string   `json:"cwd"`
	UID            int64    `json:"uid"`
	GID            int64    `json:"gid"`
	Groups         []int64  `json:"groups,omitempty"`
	StopSignal     int      `json:"stopSignal"`
	ReadonlyRootFS bool     `json:"readonlyRootfs"`
}

// PodName identifies a pod.
type PodName struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	UID       string `json:"uid"`
	Attempt   uint32 `json:"attempt"`
}

// Config is the content of ConfigFile, a subset of the configuration that Podman and CRI-O write.
type Config struct {
	ID              string    `json:"id"`
	Name            string    `json:"name"`
	RootfsImage     string    `json:"rootfsImage,omitempty"`
	RootfsImageRef  string    `json:"rootfsImageRef,omitempty"`
	RootfsImageName string    `json:"rootfsImageName,omitempty"`
	OCIRuntime      string    `json:"runtime,omitempty"`
	CreatedTime     time.Time `json:"createdTime"`
	CheckpointedAt  time.Time `json:"checkpointedTime"`
	RestoredAt      time.Time `json:"restoredTime"`
	Restored        bool      `json:"restored"`
}

// BindMount is an entry of MountsFile: a file or directory of the host that is mounted into the container.
type BindMount struct {
	Source      string `json:"source"`
	Destination string `json:"destination"`
	FileType    string `json:"file_type"` // "directory" or "file"
	Permissions uint32 `json:"permissions"`
}

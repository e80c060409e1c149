package archive

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
)

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
	// Config is the ContainerConfig of the container as protobuf JSON. Earlier daemons did not write it.
	Config json.RawMessage `json:"config,omitempty"`
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

// ParseInfo parses the content of InfoFile. Errors: ErrInvalidArgument for content that breaks a rule, and
// ErrFailedPrecondition for another version of the format.
func ParseInfo(b []byte) (*ContainerInfo, error) {
	var info ContainerInfo
	if err := decode(b, &info); err != nil {
		return nil, fmt.Errorf("%s: %w", InfoFile, err)
	}
	if err := info.Origin.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", InfoFile, err)
	}
	if info.Container.Name == "" {
		return nil, fmt.Errorf("%s: container.name must be given: %w", InfoFile, errdefs.ErrInvalidArgument)
	}
	return &info, nil
}

// decode parses JSON of at most MaxJSON bytes.
func decode(b []byte, v any) error {
	if len(b) > MaxJSON {
		return fmt.Errorf("has %d bytes, the limit is %d: %w", len(b), MaxJSON, errdefs.ErrInvalidArgument)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// check returns an ErrFailedPrecondition for another version of the format.
func (o *Origin) check() error { return checkVersion(o.Version) }

// checkVersion returns an ErrFailedPrecondition for another version of the format.
func checkVersion(version int) error {
	if version != Version {
		return fmt.Errorf("version %d is not supported, only version %d: %w", version, Version, errdefs.ErrFailedPrecondition)
	}
	return nil
}

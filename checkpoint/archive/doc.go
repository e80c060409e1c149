// Package archive reads and writes the files of checkpoints: the archive of one container, which is a tar that
// checkpointctl, Podman and the kubelet know, and the directory of a pod, which has such an archive for each container
// and a manifest. docs/checkpoint.md specifies both.
//
// The package does not freeze, dump or restore anything. Archives are untrusted: a Reader limits names, sizes and the
// number of entries, and never follows a link.
package archive

// Version is the version of the format, of container archives and of pod checkpoints. A reader refuses other versions.
const Version = 1

// Names of the entries of a container archive.
const (
	InfoFile         = "criserver.json"
	SpecFile         = "spec.dump"
	ConfigFile       = "config.dump"
	MountsFile       = "bind.mounts"
	DeletedFile      = "deleted.files"
	RootFSDiffFile   = "rootfs-diff.tar"
	ShmFile          = "devshm-checkpoint.tar"
	DumpLogFile      = "dump.log"
	StatsFile        = "stats-dump"
	ContainerLogFile = "container.log"
	// ImageDir is the directory of the images of CRIU. It has no directories below it.
	ImageDir = "checkpoint"
)

// Names in the directory of a pod checkpoint.
const (
	ManifestFile  = "manifest.json"
	ContainersDir = "containers"
	PodShmFile    = "shm.tar"
)

// PartShm is the name of the part of a pod checkpoint that has the files of /dev/shm.
const PartShm = "shm"

// Limits of a container archive and of a manifest.
const (
	// MaxEntries is the maximum number of entries of a container archive.
	MaxEntries = 1 << 17
	// MaxJSON is the maximum size of an entry that is read into memory, and of a manifest, in bytes.
	MaxJSON = 16 << 20
	// MaxName is the maximum length of the name of an entry in bytes.
	MaxName = 255
	// MaxContainers is the maximum number of containers of a pod checkpoint.
	MaxContainers = 1024
	// maxVolume is the maximum size of one entry in bytes: more than the memory of any machine.
	maxVolume = 1 << 46
)

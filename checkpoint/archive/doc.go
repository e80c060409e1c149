// Package archive defines the formats of checkpoints: the archive of one container, a tar that checkpointctl can
// display, and the manifest of a pod checkpoint, a directory with an archive for each container. docs/checkpoint.md
// specifies both formats. The package writes and reads archives. It does not freeze, dump or restore containers.
//
// Archives and manifests are untrusted: a Reader limits names, sizes and the number of entries, and accepts no link. A
// Tree reads an archive that another program has unpacked, for example into an image, by the same rules.
package archive

// Version is the version of the formats of container archives and pod checkpoints. Other versions are refused.
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
	// FilesFile is the last entry before MACFile. It has the sizes and the digests of all entries before it, and a
	// message authentication code, so that the unpacked files of an archive can be verified. See FileList.
	FilesFile = "criserver.files"
	// MACFile is the last entry: the message authentication code of all bytes before its content, in hexadecimal.
	MACFile = "criserver.mac"
	// ImageDir is the directory of the CRIU images, without subdirectories.
	ImageDir = "checkpoint"
)

// Names in the directory of a pod checkpoint.
const (
	ManifestFile  = "manifest.json"
	ContainersDir = "containers"
	PodShmFile    = "shm.tar"
)

// PartShm is the name of the part of a pod checkpoint with the files of /dev/shm.
const PartShm = "shm"

// Limits of archives and manifests.
const (
	// MaxEntries is the maximum number of entries of a container archive.
	MaxEntries = 1 << 17
	// MaxJSON is the maximum size of a manifest, and of an entry that is read into memory, in bytes.
	MaxJSON = 16 << 20
	// MaxContainers is the maximum number of containers of a pod checkpoint.
	MaxContainers = 1024
	// maxFileList is the maximum size of FilesFile in bytes. A list of MaxEntries entries has less.
	maxFileList = 64 << 20
	// maxName is the maximum length of the name of a CRIU image in bytes.
	maxName = 255
	// maxSize is the maximum size of an entry in bytes. No machine has more memory.
	maxSize = 1 << 46
)

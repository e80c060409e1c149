// Package record contains the files of a container on the disk: the intent record, which is written once, the state
// file, and the OCI config of the bundle. It also makes a record from the readable parts of files that cannot be read.
// Package record never decides what happens to a container.
package record

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/criserver/criserver/container/limits"
	"github.com/criserver/criserver/internal/atomicfile"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/runtime"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Version is the version of the files. The other constants are the names of the files in the directory of a container.
const (
	Version    = 1
	File       = "record.json"
	StateFile  = "state.json"
	ConfigFile = "config.json" // of the OCI bundle
)

// Record is the intent record: the properties of the container. It is written once, before
// any other side effect of the creation, and removed last.
type Record struct {
	Version   int             `json:"version"`
	Boot      string          `json:"boot"`
	ID        string          `json:"id"`
	PodID     string          `json:"podID"`
	Config    json.RawMessage `json:"config"`
	PodConfig json.RawMessage `json:"podConfig"`
	// Runtime is a complete copy, because the configuration of the daemon can change
	// during the life of the container.
	Runtime    runtime.Runtime `json:"runtime"`
	ImageID    string          `json:"imageID"`
	ImageRef   string          `json:"imageRef"`
	LogPath    string          `json:"logPath,omitempty"`
	CgroupPath string          `json:"cgroupPath"`
	StopSignal unix.Signal     `json:"stopSignal"`
	// SharedPID is true if the PID namespace also has processes of other containers or of
	// the host. The exit of the first process then does not end the other processes of the
	// container.
	SharedPID bool `json:"sharedPID,omitempty"`
	// Restore is not nil for a container that is restored from a checkpoint.
	Restore *Restore `json:"restore,omitempty"`
	// Volumes are the ids of the images that are mounted as volumes, by the index of the
	// mount in the request.
	Volumes map[int]string `json:"volumes,omitempty"`
}

// Restore describes the checkpoint from which a container is restored.
type Restore struct {
	// Images is the directory of the process images. It belongs to the container, and is deleted
	// when the container is restored or removed.
	Images string `json:"images"`
}

// Write writes the record to the directory of its container.
func (r *Record) Write(dir string) error { return WriteJSON(filepath.Join(dir, File), r) }

// SetMessages stores the CRI messages as JSON.
func (r *Record) SetMessages(c *cri.ContainerConfig, p *cri.PodSandboxConfig) (err error) {
	if r.Config, err = protojson.Marshal(c); err != nil {
		return fmt.Errorf("encode container config: %w", err)
	}
	if r.PodConfig, err = protojson.Marshal(p); err != nil {
		return fmt.Errorf("encode pod config: %w", err)
	}
	return nil
}

// Messages returns the stored CRI messages.
func (r *Record) Messages() (*cri.ContainerConfig, *cri.PodSandboxConfig, error) {
	c, p := &cri.ContainerConfig{}, &cri.PodSandboxConfig{}
	// Another version of the daemon may have written fields that this version does not know.
	opts := protojson.UnmarshalOptions{DiscardUnknown: true}
	if err := opts.Unmarshal(r.Config, c); err != nil {
		return nil, nil, fmt.Errorf("decode container config: %w", err)
	}
	if err := opts.Unmarshal(r.PodConfig, p); err != nil {
		return nil, nil, fmt.Errorf("decode pod config: %w", err)
	}
	return c, p, nil
}

// Read reads the record in the directory of a container. It returns fs.ErrNotExist if the directory has no record.
func Read(dir string) (*Record, error) {
	var r Record
	if err := ReadJSON(filepath.Join(dir, File), &r); err != nil {
		return nil, err
	}
	if r.Version != Version || r.ID != filepath.Base(dir) {
		return nil, fmt.Errorf("%s: version %d with id %q is not supported", File, r.Version, r.ID)
	}
	return &r, nil
}

// Status has the events of the life of a container. Times are nanoseconds since the epoch, or
// 0 for "not yet".
type Status struct {
	Version int   `json:"version"`
	Created int64 `json:"created,omitempty"`
	// Starting is set before the runtime starts the first process, and Started after it.
	Starting int64    `json:"starting,omitempty"`
	Started  int64    `json:"started,omitempty"`
	Init     proc.Ref `json:"init"`
	Monitor  proc.Ref `json:"monitor"`
	// ProcessCgroup is the cgroup that the first process had at the creation, if it is
	// below the CgroupPath of the record; otherwise it is "".
	ProcessCgroup string `json:"processCgroup,omitempty"`
	// MonitorLost is true if the monitor exited before the container.
	MonitorLost bool `json:"monitorLost,omitempty"`
	// ReadError is why a file of the container could not be read, or "". With a
	// ReadError, the state is unknown.
	ReadError string  `json:"unread,omitempty"`
	UID       int64   `json:"uid"`
	GID       int64   `json:"gid"`
	Groups    []int64 `json:"groups,omitempty"`
	Exit      *Exit   `json:"end,omitempty"`
	// Updated are the resources in force after the first update.
	Updated json.RawMessage `json:"updated,omitempty"`
	// Extra are limits from updates that the CRI cannot express. A change replaces the
	// value, and never writes to it.
	Extra *specs.LinuxResources `json:"extra,omitempty"`
	// Undo has the limits from before the running update, or is nil. If the daemon dies
	// during an update, the next daemon sets these limits.
	Undo *limits.Saved `json:"undo,omitempty"`

	updated *cri.LinuxContainerResources // Updated, decoded
}

// Exit is how a container has exited.
type Exit struct {
	Finished int64  `json:"finished"`
	ExitCode int32  `json:"exitCode"`
	Reason   string `json:"reason"`
	Message  string `json:"message,omitempty"`
}

// Write writes the status to the state file in the directory of its container.
func (s *Status) Write(dir string) error {
	s.Version = Version
	return WriteJSON(filepath.Join(dir, StateFile), s)
}

// ReadStatus reads the state file in the directory of a container. It returns fs.ErrNotExist if the directory has no
// state file.
func ReadStatus(dir string) (Status, error) {
	var s Status
	if err := ReadJSON(filepath.Join(dir, StateFile), &s); err != nil {
		return s, err
	}
	if s.Version != Version {
		return s, fmt.Errorf("%s: version %d is not supported", StateFile, s.Version)
	}
	if len(s.Updated) > 0 {
		s.updated = &cri.LinuxContainerResources{}
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(s.Updated, s.updated); err != nil {
			return s, fmt.Errorf("%s: resources: %w", StateFile, err)
		}
	}
	return s, nil
}

// Resources returns the resources in force.
func (s *Status) Resources(c *cri.ContainerConfig) *cri.LinuxContainerResources {
	if s.updated != nil {
		return s.updated
	}
	return c.GetLinux().GetResources()
}

// SetResources replaces the resources in force.
func (s *Status) SetResources(r *cri.LinuxContainerResources) error {
	b, err := protojson.Marshal(r)
	if err != nil {
		return err
	}
	s.Updated, s.updated = b, proto.CloneOf(r)
	return nil
}

// AddExtra adds limits that the CRI cannot express. extra can be nil.
func (s *Status) AddExtra(extra *specs.LinuxResources) {
	if extra == nil {
		return
	}
	sum := &specs.LinuxResources{}
	oci.MergeResources(sum, s.Extra)
	oci.MergeResources(sum, extra)
	s.Extra = sum
}

// WriteJSON replaces a file atomically with the JSON encoding of v. The file need not survive a power cut.
func WriteJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, b, 0o600)
}

// ReadJSON decodes a file. Fields that were decoded before an error stay in v.
func ReadJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return nil
}

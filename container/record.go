package container

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/criserver/criserver/internal/atomicfile"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	recordVersion = 1
	recordFile    = "record.json"
	stateFile     = "state.json"
	configFile    = "config.json" // of the OCI bundle
)

// record is the intent: what a container is to be. It is written once, before
// anything is made, and removed last.
type record struct {
	Version   int             `json:"version"`
	Boot      string          `json:"boot"`
	ID        string          `json:"id"`
	PodID     string          `json:"podID"`
	Config    json.RawMessage `json:"config"`
	PodConfig json.RawMessage `json:"podConfig"`
	// Runtime is kept whole, as the configuration may change while the
	// container lives.
	Runtime    oci.Runtime `json:"runtime"`
	ImageID    string      `json:"imageID"`
	ImageRef   string      `json:"imageRef"`
	LogPath    string      `json:"logPath,omitempty"`
	CgroupPath string      `json:"cgroupPath"`
	StopSignal unix.Signal `json:"stopSignal"`
	// SharedPID: other processes than the container's are in its PID namespace,
	// so that the death of its first process does not end the rest.
	SharedPID bool `json:"sharedPID,omitempty"`
	// Volumes are the ids of the images that the request's mounts name, by the
	// mount's index.
	Volumes map[int]string `json:"volumes,omitempty"`
}

func (r *record) write(dir string) error { return writeJSON(filepath.Join(dir, recordFile), r) }

// setMessages keeps the CRI messages as JSON.
func (r *record) setMessages(c *cri.ContainerConfig, p *cri.PodSandboxConfig) (err error) {
	if r.Config, err = protojson.Marshal(c); err != nil {
		return fmt.Errorf("encode container config: %w", err)
	}
	if r.PodConfig, err = protojson.Marshal(p); err != nil {
		return fmt.Errorf("encode pod config: %w", err)
	}
	return nil
}

func (r *record) messages() (*cri.ContainerConfig, *cri.PodSandboxConfig, error) {
	c, p := &cri.ContainerConfig{}, &cri.PodSandboxConfig{}
	// A daemon of another version may have written fields that are unknown here.
	opts := protojson.UnmarshalOptions{DiscardUnknown: true}
	if err := opts.Unmarshal(r.Config, c); err != nil {
		return nil, nil, fmt.Errorf("decode container config: %w", err)
	}
	if err := opts.Unmarshal(r.PodConfig, p); err != nil {
		return nil, nil, fmt.Errorf("decode pod config: %w", err)
	}
	return c, p, nil
}

// readRecord fails with fs.ErrNotExist when dir has none.
func readRecord(dir string) (*record, error) {
	var r record
	if err := readJSON(filepath.Join(dir, recordFile), &r); err != nil {
		return nil, err
	}
	if r.Version != recordVersion || r.ID != filepath.Base(dir) {
		return nil, fmt.Errorf("%s: version %d, id %q: not understood", recordFile, r.Version, r.ID)
	}
	return &r, nil
}

// facts is what has happened to a container. Times are nanoseconds since the
// epoch, 0 for "not yet".
type facts struct {
	Version int   `json:"version"`
	Created int64 `json:"created,omitempty"`
	// Starting is the intent to run the process, Started that it was done.
	Starting int64    `json:"starting,omitempty"`
	Started  int64    `json:"started,omitempty"`
	Init     proc.Ref `json:"init"`
	Monitor  proc.Ref `json:"monitor"`
	// ProcessCgroup is the cgroup of the first process when the container was
	// made, if it is below the record's CgroupPath; else "".
	ProcessCgroup string `json:"processCgroup,omitempty"`
	// MonitorLost: the monitor went before the container did.
	MonitorLost bool `json:"monitorLost,omitempty"`
	// Unread says why the state is unknown: a file could not be read.
	Unread string  `json:"unread,omitempty"`
	UID    int64   `json:"uid"`
	GID    int64   `json:"gid"`
	Groups []int64 `json:"groups,omitempty"`
	End    *end    `json:"end,omitempty"`
	// Updated are the resources in force, once they were updated.
	Updated json.RawMessage `json:"updated,omitempty"`
	// Extra are limits that updates have set beyond the words of the CRI. It is
	// replaced, never written to.
	Extra *specs.LinuxResources `json:"extra,omitempty"`

	// Undo is what to put back should the update under way not be finished.
	Undo *undo `json:"undo,omitempty"`

	updated *cri.LinuxContainerResources // Updated, decoded
}

// end is how a container ended.
type end struct {
	Finished int64  `json:"finished"`
	ExitCode int32  `json:"exitCode"`
	Reason   string `json:"reason"`
	Message  string `json:"message,omitempty"`
}

func (f *facts) write(dir string) error {
	f.Version = recordVersion
	return writeJSON(filepath.Join(dir, stateFile), f)
}

func readFacts(dir string) (facts, error) {
	var f facts
	if err := readJSON(filepath.Join(dir, stateFile), &f); err != nil {
		return f, err
	}
	if f.Version != recordVersion {
		return f, fmt.Errorf("%s: version %d is not understood", stateFile, f.Version)
	}
	if len(f.Updated) > 0 {
		f.updated = &cri.LinuxContainerResources{}
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(f.Updated, f.updated); err != nil {
			return f, fmt.Errorf("%s: resources: %w", stateFile, err)
		}
	}
	return f, nil
}

// resources are those in force.
func (f *facts) resources(c *cri.ContainerConfig) *cri.LinuxContainerResources {
	if f.updated != nil {
		return f.updated
	}
	return c.GetLinux().GetResources()
}

func (f *facts) setResources(r *cri.LinuxContainerResources) error {
	b, err := protojson.Marshal(r)
	if err != nil {
		return err
	}
	f.Updated, f.updated = b, proto.CloneOf(r)
	return nil
}

func (f *facts) addExtra(extra *specs.LinuxResources) {
	if extra == nil {
		return
	}
	sum := &specs.LinuxResources{}
	oci.Overlay(sum, f.Extra)
	oci.Overlay(sum, extra)
	f.Extra = sum
}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, b, 0o600)
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return nil
}

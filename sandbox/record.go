package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/criserver/criserver/internal/atomicfile"
	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/criserver/criserver/sandbox/network"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// recordVersion is the version of the format of record. Fields may be added, but existing fields never change their
// meaning. The daemon does not interpret a record with a higher version.
const recordVersion = 1

const (
	recordFile = "record.json"
	maxRecord  = 8 << 20 // bytes
)

// record is the stored state of a pod: the request, and facts with their times. The state of the pod follows from the
// facts.
type record struct {
	Version int    `json:"version"`
	BootID  string `json:"bootID"`
	ID      string `json:"id"`
	Config  []byte `json:"config"` // cri.PodSandboxConfig in protobuf encoding
	Handler string `json:"handler,omitempty"`
	// DefaultHandler is the handler that "" stood for when the pod was created, or "" in records of earlier versions.
	DefaultHandler string    `json:"defaultHandler,omitempty"`
	CreatedAt      time.Time `json:"createdAt"`
	HostName       string    `json:"hostName"`
	CgroupParent   string    `json:"cgroupParent"`
	// ProcessLabel and MountLabel are SELinux labels, or "".
	ProcessLabel string `json:"processLabel,omitempty"`
	MountLabel   string `json:"mountLabel,omitempty"`
	// Plan is the CNI configuration of eth0, with which the pod is attached and detached. It is nil for a pod with the
	// network of the host.
	Plan json.RawMessage `json:"plan,omitempty"`

	// NetNSName is the path of the name of the network namespace, or "".
	NetNSName string `json:"netnsName,omitempty"`
	// NoHostPorts says that the host ports of the request are not mapped: see Config.NoHostPorts.
	NoHostPorts bool `json:"noHostPorts,omitempty"`

	IPs       []netip.Addr    `json:"ips,omitempty"`
	CNIResult json.RawMessage `json:"cniResult,omitempty"`
	// Interfaces are the interfaces on additional networks, in the order in which the pod is attached.
	Interfaces []network.Interface `json:"interfaces,omitempty"`
	Pause      *proc.Ref           `json:"pause,omitempty"`

	// Updated is a cri.LinuxPodSandboxConfig in protobuf encoding with the overhead and the resources of the last update.
	// It is nil before the first update.
	Updated []byte `json:"updated,omitempty"`

	// ReadyAt is zero until the creation of the pod is complete.
	ReadyAt time.Time `json:"readyAt,omitzero"`
	// LostReason says why a pod that was ready and was not stopped is no longer ready.
	LostReason string `json:"lost,omitempty"`
	// StoppedAt is the time of the first request to stop or remove the pod.
	StoppedAt time.Time `json:"stoppedAt,omitzero"`
	// TeardownError says why the pod is not torn down yet.
	TeardownError string `json:"trouble,omitempty"`
	// DetachedAt is the time when the pod was detached from its networks.
	DetachedAt time.Time `json:"detachedAt,omitzero"`
	// ReleasedAt is the time when all resources but the files were released.
	ReleasedAt time.Time `json:"releasedAt,omitzero"`
}

func (r *record) ready() bool {
	return !r.ReadyAt.IsZero() && r.StoppedAt.IsZero() && r.LostReason == ""
}

func (r *record) released() bool { return !r.ReleasedAt.IsZero() }

// notReadyReason returns the reason why the pod is not ready, or "".
func (r *record) notReadyReason() string {
	switch {
	case r.ready():
		return ""
	case r.TeardownError != "":
		return r.TeardownError
	case r.LostReason != "":
		return r.LostReason
	case r.ReadyAt.IsZero():
		return "its creation is not complete"
	}
	return "it was stopped"
}

// dirs has the paths of the directories of pods.
type dirs struct{ run string }

func (d dirs) pods() string           { return filepath.Join(d.run, "pods") }
func (d dirs) pod(id string) string   { return filepath.Join(d.run, "pods", id) }
func (d dirs) pins() string           { return filepath.Join(d.run, "ns") }
func (d dirs) pin(id string) string   { return filepath.Join(d.run, "ns", id) }
func (d dirs) netns(id string) string { return filepath.Join(d.pin(id), namespace.Net) }
func (d dirs) file(id string) string  { return filepath.Join(d.run, "pods", id, recordFile) }

// write replaces the record on disk. The caller must hold the operation lock of the pod.
func (d dirs) write(r *record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write record of pod sandbox: %w", err)
	}
	return atomicfile.Write(d.file(r.ID), b, 0o600)
}

// read returns the record of a pod and the request in the record. It returns fs.ErrNotExist if there is no record.
func (d dirs) read(id string) (*record, *cri.PodSandboxConfig, error) {
	file := d.file(id)
	info, err := os.Lstat(file)
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxRecord {
		return nil, nil, fmt.Errorf("%s is not a regular file of at most %d bytes", file, maxRecord)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	r, config := &record{}, &cri.PodSandboxConfig{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, nil, fmt.Errorf("parse %s: %w", file, err)
	}
	if err := proto.Unmarshal(r.Config, config); err != nil {
		return nil, nil, fmt.Errorf("parse the config in %s: %w", file, err)
	}
	switch {
	case r.Version < 1 || r.Version > recordVersion:
		return nil, nil, fmt.Errorf("%s has version %d, but this daemon supports versions up to %d", file, r.Version, recordVersion)
	case r.ID != id || config.Metadata == nil:
		return nil, nil, fmt.Errorf("%s is not the record of this pod", file)
	}
	return r, config, nil
}

// listIDs returns the pod ids among the names of the entries of a directory.
func listIDs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if ids.Valid(e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

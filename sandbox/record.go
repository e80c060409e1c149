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
	"github.com/criserver/criserver/sandbox/network"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// recordVersion is the version of the form below. Fields are added and never
// change their meaning; a record of a higher version is left alone.
const recordVersion = 1

const (
	recordFile = "record.json"
	maxRecord  = 8 << 20 // bytes
)

// record is what is kept of a pod: what was asked for, and facts with their
// times, from which the state follows.
type record struct {
	Version      int       `json:"version"`
	BootID       string    `json:"bootID"`
	ID           string    `json:"id"`
	Config       []byte    `json:"config"` // cri.PodSandboxConfig in protobuf
	Handler      string    `json:"handler,omitempty"`
	CreatedAt    time.Time `json:"createdAt"`
	HostName     string    `json:"hostName"`
	CgroupParent string    `json:"cgroupParent"`
	// SELinux labels, or "".
	ProcessLabel string `json:"processLabel,omitempty"`
	MountLabel   string `json:"mountLabel,omitempty"`
	// Plan is what to detach the pod from its network with. Nil without a network.
	Plan json.RawMessage `json:"plan,omitempty"`

	IPs       []netip.Addr    `json:"ips,omitempty"`
	CNIResult json.RawMessage `json:"cniResult,omitempty"`
	// Interfaces are those beside eth0, in the order in which they are made.
	Interfaces []network.Interface `json:"interfaces,omitempty"`
	Pause      *proc.Ref           `json:"pause,omitempty"`

	// Updated is cri.LinuxPodSandboxConfig in protobuf with the overhead and the
	// resources of the last update; nil before there was one.
	Updated []byte `json:"updated,omitempty"`

	// ReadyAt is zero for a pod that was not made to the end.
	ReadyAt time.Time `json:"readyAt,omitzero"`
	// Lost says what of a pod that was ready is gone.
	Lost string `json:"lost,omitempty"`
	// StoppedAt is when the end of the pod was asked for.
	StoppedAt time.Time `json:"stoppedAt,omitzero"`
	// Trouble is why the resources could not be given back, so far.
	Trouble string `json:"trouble,omitempty"`
	// DetachedAt is when the network was given back and ReleasedAt when
	// everything was but the files.
	DetachedAt time.Time `json:"detachedAt,omitzero"`
	ReleasedAt time.Time `json:"releasedAt,omitzero"`
}

func (r *record) ready() bool {
	return !r.ReadyAt.IsZero() && r.StoppedAt.IsZero() && r.Lost == ""
}

func (r *record) released() bool { return !r.ReleasedAt.IsZero() }

func (r *record) notReadyReason() string {
	switch {
	case r.ready():
		return ""
	case r.Trouble != "":
		return r.Trouble
	case r.Lost != "":
		return r.Lost
	case r.ReadyAt.IsZero():
		return "it was not made to the end"
	}
	return "it was stopped"
}

// dirs says where things of pods are.
type dirs struct{ run string }

func (d dirs) pods() string          { return filepath.Join(d.run, "pods") }
func (d dirs) pod(id string) string  { return filepath.Join(d.run, "pods", id) }
func (d dirs) pins() string          { return filepath.Join(d.run, "ns") }
func (d dirs) pin(id string) string  { return filepath.Join(d.run, "ns", id) }
func (d dirs) file(id string) string { return filepath.Join(d.run, "pods", id, recordFile) }

// write replaces the record on disk. It is called with the pod's operation
// lock held.
func (d dirs) write(r *record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("record pod sandbox: %w", err)
	}
	return atomicfile.Write(d.file(r.ID), b, 0o600)
}

// read returns the record of a pod and the request in it. fs.ErrNotExist when
// there is none.
func (d dirs) read(id string) (*record, *cri.PodSandboxConfig, error) {
	info, err := os.Lstat(d.file(id))
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxRecord {
		return nil, nil, fmt.Errorf("%s is not a file of at most %d bytes", d.file(id), maxRecord)
	}
	b, err := os.ReadFile(d.file(id))
	if err != nil {
		return nil, nil, err
	}
	r, config := &record{}, &cri.PodSandboxConfig{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, nil, fmt.Errorf("parse %s: %w", d.file(id), err)
	}
	if err := proto.Unmarshal(r.Config, config); err != nil {
		return nil, nil, fmt.Errorf("parse the request in %s: %w", d.file(id), err)
	}
	switch {
	case r.Version < 1 || r.Version > recordVersion:
		return nil, nil, fmt.Errorf("%s has version %d; this daemon knows up to %d", d.file(id), r.Version, recordVersion)
	case r.ID != id || config.Metadata == nil:
		return nil, nil, fmt.Errorf("%s is not the record of this pod", d.file(id))
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

package record

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/criserver/criserver/container/containerspec"
	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/oci/runtime"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Salvager makes records of containers whose files cannot be read.
type Salvager struct {
	// RunDir has the directories pods/<id> and ns/<id> of the pods.
	RunDir string
	// Boot is the id of the current boot.
	Boot string
	// FindRuntime returns the runtime that has a container, or else the default runtime.
	FindRuntime func(containerID string) runtime.Runtime
}

// Salvage makes a record from the readable parts of the files in the directory of a container. Missing fields get safe
// values: the id of the container as its name, which no other container has, and
// SharedPID, so that a stop kills all processes in the cgroup of the container.
func (s Salvager) Salvage(dir string) (*Record, *cri.ContainerConfig, *cri.PodSandboxConfig) {
	id := filepath.Base(dir)
	rec := &Record{}
	if b, err := os.ReadFile(filepath.Join(dir, File)); err == nil {
		_ = json.Unmarshal(b, rec) // sets the fields before the error
	}
	if rec.ID != id {
		*rec = Record{ID: id, SharedPID: true}
	}
	opts := protojson.UnmarshalOptions{DiscardUnknown: true}
	config, podConfig := &cri.ContainerConfig{}, &cri.PodSandboxConfig{}
	if opts.Unmarshal(rec.Config, config) != nil || config.GetMetadata() == nil {
		config = &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: id}, Image: &cri.ImageSpec{}}
	}
	if opts.Unmarshal(rec.PodConfig, podConfig) != nil {
		podConfig = &cri.PodSandboxConfig{}
	}
	rec.Version, rec.Boot, rec.Config, rec.PodConfig = Version, s.Boot, nil, nil
	if !containerspec.ValidSignal(rec.StopSignal) {
		rec.StopSignal = unix.SIGTERM
	}
	var spec specs.Spec
	_ = ReadJSON(filepath.Join(dir, ConfigFile), &spec) // the file may be missing
	if rec.Runtime.Path == "" || rec.Runtime.Root == "" {
		rec.Runtime = s.FindRuntime(id)
	}
	rec.PodID = cmp.Or(rec.PodID, s.findPodID(&spec))
	if rec.CgroupPath == "" && spec.Linux != nil {
		if path, err := rec.Runtime.ResolveCgroup(spec.Linux.CgroupsPath); err == nil {
			rec.CgroupPath, _ = Cgroup(id, path)
		}
	}
	return rec, config, podConfig
}

// findPodID finds the pod of a container by the pod's files and namespaces that its OCI
// config names, which are at pods/ID and ns/ID of the run directory.
func (s Salvager) findPodID(spec *specs.Spec) string {
	var paths []string
	for _, mount := range spec.Mounts {
		paths = append(paths, mount.Source)
	}
	if spec.Linux != nil {
		for _, ns := range spec.Linux.Namespaces {
			paths = append(paths, ns.Path)
		}
	}
	for _, path := range paths {
		for _, dir := range []string{"pods", "ns"} {
			rest, below := strings.CutPrefix(path, filepath.Join(s.RunDir, dir)+"/")
			if id, _, _ := strings.Cut(rest, "/"); below && ids.Valid(id) {
				return id
			}
		}
	}
	return ""
}

// Cgroup returns the part of a cgroup path that is the cgroup of a container.
func Cgroup(id, path string) (string, bool) {
	name := "/criserver-" + id
	before, after, found := strings.Cut(path+"/", name)
	switch {
	case found && strings.HasPrefix(after, "/"):
		return before + name, true
	case found && strings.HasPrefix(after, ".scope/"):
		return before + name + ".scope", true
	}
	return "", false
}

// PreserveStatus gives an unreadable state file a second name, because the first name is about
// to be replaced. The file is deleted with its directory.
func PreserveStatus(dir string) error {
	file := filepath.Join(dir, StateFile)
	err := os.Link(file, file+".unread")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

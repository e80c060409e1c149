package container

import (
	"cmp"
	"encoding/json"
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

// salvage makes a record from the readable parts of the files. Missing fields get safe
// values: the id of the container as its name, which no other container has, and
// SharedPID, so that a stop kills all processes in the cgroup of the container.
func (m *Manager) salvage(id string) (*record, *cri.ContainerConfig, *cri.PodSandboxConfig) {
	rec := &record{}
	if b, err := os.ReadFile(filepath.Join(m.dir(id), recordFile)); err == nil {
		_ = json.Unmarshal(b, rec) // sets the fields before the error
	}
	if rec.ID != id {
		*rec = record{ID: id, SharedPID: true}
	}
	opts := protojson.UnmarshalOptions{DiscardUnknown: true}
	config, podConfig := &cri.ContainerConfig{}, &cri.PodSandboxConfig{}
	if opts.Unmarshal(rec.Config, config) != nil || config.GetMetadata() == nil {
		config = &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: id}, Image: &cri.ImageSpec{}}
	}
	if opts.Unmarshal(rec.PodConfig, podConfig) != nil {
		podConfig = &cri.PodSandboxConfig{}
	}
	rec.Version, rec.Boot, rec.Config, rec.PodConfig = recordVersion, m.boot, nil, nil
	if !containerspec.ValidSignal(rec.StopSignal) {
		rec.StopSignal = unix.SIGTERM
	}
	var spec specs.Spec
	_ = readJSON(filepath.Join(m.dir(id), configFile), &spec) // the file may be missing
	if rec.Runtime.Path == "" || rec.Runtime.Root == "" {
		rec.Runtime = m.findRuntime(id)
	}
	rec.PodID = cmp.Or(rec.PodID, m.findPodID(&spec))
	if rec.CgroupPath == "" && spec.Linux != nil {
		if path, err := rec.Runtime.ResolveCgroup(spec.Linux.CgroupsPath); err == nil {
			rec.CgroupPath, _ = containerCgroup(id, path)
		}
	}
	return rec, config, podConfig
}

// findRuntime returns the runtime that has a container of the id. If no runtime has
// one, it returns the default runtime, whose delete then does nothing.
func (m *Manager) findRuntime(id string) runtime.Runtime {
	s := m.settings.Load()
	for _, r := range s.knownRuntimes() {
		if r.HasContainer(id) {
			return *r
		}
	}
	return *s.Runtimes[s.DefaultRuntime]
}

// findPodID finds the pod of a container by the pod's files and namespaces that its OCI
// config names, which are at pods/ID and ns/ID of the run directory.
func (m *Manager) findPodID(spec *specs.Spec) string {
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
			rest, below := strings.CutPrefix(path, filepath.Join(m.cfg.RunDir, dir)+"/")
			if id, _, _ := strings.Cut(rest, "/"); below && ids.Valid(id) {
				return id
			}
		}
	}
	return ""
}

package guest

import (
	"maps"
	"os"
	"path/filepath"

	"github.com/criserver/criserver/container/record"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/runtime"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// pauseInGuest is the path of the pause process in the root file system of a guest.
const pauseInGuest = "/pause"

// writeBundle writes the bundle of a guest: a container whose only process is the
// pause process. It has the network of the pod. It has no limits, because the limits of
// the pod cgroup apply.
func (m *Manager) writeBundle(builder *oci.Builder, g *Record, pod Pod, dir string) error {
	cgroups, _ := g.Runtime.CgroupsPath(pod.CgroupParent, pod.ID)
	res, err := builder.Build(oci.Input{
		Args: []string{pauseInGuest}, Env: []string{"PATH=/"}, Cwd: "/", RootFS: filepath.Join(dir, "rootfs"), CgroupsPath: cgroups,
		Namespaces:  oci.Namespaces{Net: pod.NetNS, NewPID: true},
		Mounts:      []oci.Mount{{Source: m.cfg.PausePath, Destination: pauseInGuest, ReadOnly: true}},
		Annotations: runtime.GuestAnnotations(),
	})
	if err != nil {
		return err
	}
	res.Spec.Hostname = pod.Hostname
	res.Spec.Linux.Namespaces = append(res.Spec.Linux.Namespaces,
		specs.LinuxNamespace{Type: specs.UTSNamespace}, specs.LinuxNamespace{Type: specs.IPCNamespace})
	b, err := oci.Encode(res.Spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, record.ConfigFile), b, 0o600)
}

// Annotate adds the annotations that tell the runtime the guest of the container, if the runtime runs containers in
// guests.
func Annotate(r *runtime.Runtime, podID string, config *specs.Spec) {
	if !r.Guest {
		return
	}
	if config.Annotations == nil {
		config.Annotations = make(map[string]string)
	}
	maps.Copy(config.Annotations, runtime.InGuestAnnotations(podID))
}

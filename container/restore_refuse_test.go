package container

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// emptyRestore is a checkpoint without files.
func emptyRestore(unpack func()) Restore {
	return Restore{
		Unpack: func(context.Context, string, string) error { unpack(); return nil },
		Check:  func(context.Context, RestoreTarget) error { return nil },
	}
}

// TestCreateRestoredRefuses checks that no container is restored in a pod whose namespaces a restore cannot make, and
// that nothing is unpacked before.
func TestCreateRestoredRefuses(t *testing.T) {
	for name, alter := range map[string]func(*Pod, *cri.ContainerConfig){
		"user namespace":    func(p *Pod, _ *cri.ContainerConfig) { p.UserNS = "/run/ns/user" },
		"PIDs of the pod":   func(p *Pod, _ *cri.ContainerConfig) { p.PIDNS = "/run/ns/pid" },
		"PIDs of the node":  pidMode(cri.NamespaceMode_NODE),
		"PIDs of a sibling": pidMode(cri.NamespaceMode_TARGET),
	} {
		t.Run(name, func(t *testing.T) {
			b := newTestBed(t)
			m, _ := b.manager()
			c := shell("a", "exit 0")
			b.pods.change(func(p *Pod) { alter(p, c) })
			r := emptyRestore(func() { t.Error("the checkpoint is unpacked") })
			if _, err := m.CreateRestored(t.Context(), "pod", c, r); !errdefs.IsNotImplemented(err) {
				t.Errorf("got %v, want ErrNotImplemented", err)
			}
			if n := len(m.List()); n != 0 {
				t.Errorf("%d containers are left", n)
			}
		})
	}
}

func pidMode(mode cri.NamespaceMode) func(*Pod, *cri.ContainerConfig) {
	return func(_ *Pod, c *cri.ContainerConfig) {
		c.Linux.SecurityContext.NamespaceOptions = &cri.NamespaceOption{Pid: mode, TargetId: "0123456789ab"}
	}
}

// TestRetryOfCheckpointImage checks that a retry with an image that contains a checkpoint gets the same error after the
// container was restored from the image. Other requests with the name are refused.
func TestRetryOfCheckpointImage(t *testing.T) {
	_, manager := restoreBed(t)
	m, _ := manager()
	id, err := m.CreateRestored(t.Context(), "pod", shell("a", "exit 0"), emptyRestore(func() {}))
	if err != nil {
		t.Fatal(err)
	}
	retry := shell("a", "exit 0")
	retry.Image.Image = "checkpoint"
	var image *CheckpointImageError
	if _, err := m.Create(t.Context(), "pod", retry, nil); !errors.As(err, &image) || image.ImageID != "sha256:2" {
		t.Errorf("retry: got %v, want a CheckpointImageError", err)
	}
	if again, err := m.CreateRestored(t.Context(), "pod", shell("a", "exit 0"), emptyRestore(func() {})); err != nil || again != id {
		t.Errorf("the restore again: got %q, %v, want %q", again, err, id)
	}
	for _, ref := range []string{"busybox", "nope"} {
		other := shell("a", "exit 1")
		other.Image.Image = ref
		if _, err := m.Create(t.Context(), "pod", other, nil); !errdefs.IsAlreadyExists(err) {
			t.Errorf("another request with the image %q: got %v, want ErrAlreadyExists", ref, err)
		}
	}
	if err := m.Remove(t.Context(), id); err != nil {
		t.Error(err)
	}
}

// TestRestoreLabels checks that the SELinux labels of a restore come from the OCI config of the new container.
func TestRestoreLabels(t *testing.T) {
	const process, files = "system_u:system_r:container_t:s0:c1,c2", "system_u:object_r:container_file_t:s0:c1,c2"
	for _, tc := range []struct {
		config *specs.Spec
		want   []string
	}{
		{&specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{}}, nil},
		{&specs.Spec{Process: &specs.Process{SelinuxLabel: process}}, []string{"--lsm-profile", "selinux:" + process}},
		{
			&specs.Spec{Process: &specs.Process{SelinuxLabel: process}, Linux: &specs.Linux{MountLabel: files}},
			[]string{"--lsm-profile", "selinux:" + process, "--lsm-mount-context", files},
		},
	} {
		if got := labelArgs(tc.config); !slices.Equal(got, tc.want) {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}

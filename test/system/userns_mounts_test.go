package system

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestUserNamespaceVolumes(t *testing.T) {
	n := newNode(t, "unsv", 84)
	n.needUserNamespaces(t)
	p := n.RunPod(t, userPodConfig("volumes"))
	volume, tmpfs := filepath.Join(n.Dir, "volume"), filepath.Join(n.Dir, "tmpfs")
	for _, dir := range []string{volume, tmpfs, filepath.Join(volume, "below")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{tmpfs, filepath.Join(volume, "below")} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	}
	file := filepath.Join(volume, "file")
	for _, path := range []string{file, filepath.Join(tmpfs, "file"), filepath.Join(volume, "below", "file")} {
		if err := os.WriteFile(path, []byte("the host's\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(file, 12, 34); err != nil {
		t.Fatal(err)
	}
	c := containerConfig(p, "main", busybox, "sleep", "1000")
	mount := func(host, target string, mapped bool) *cri.Mount {
		m := &cri.Mount{HostPath: host, ContainerPath: target}
		if mapped {
			m.UidMappings, m.GidMappings = idMappings(), idMappings()
		}
		return m
	}
	image := imageMount(volumeImage, "", "/image")
	image.UidMappings, image.GidMappings = idMappings(), idMappings()
	n.Pull(t, volumeImage)
	readOnly := mount(volume, "/ro", true)
	readOnly.Readonly, readOnly.RecursiveReadOnly = true, true
	c.Mounts = []*cri.Mount{mount(volume, "/v", true), mount(tmpfs, "/t", true), mount(file, "/one", true), mount(volume, "/plain", false), readOnly, image, imageMount(volumeImage, "data", "/part")}
	id := n.CreateContainer(t, p, c)
	n.StartContainer(t, id)
	for path, want := range map[string]string{
		"/v": "0:0", "/v/file": "12:34", "/v/below/file": "0:0", "/t/file": "0:0", "/one": "12:34", "/plain/file": "65534:65534", "/ro/file": "12:34", "/ro/below/file": "0:0",
		"/image": "0:0", "/image/data/file": "0:0", "/part": "0:0",
	} {
		if got := n.Exec(t, id, "stat", "-c", "%u:%g", path); got != want {
			t.Errorf("owner of %s: got %s, want %s", path, got, want)
		}
	}
	if got := n.Exec(t, id, "cat", "/v/file", "/v/below/file", "/t/file", "/one"); strings.Count(got, "the host's") != 4 {
		t.Errorf("content of four files: got %q, want \"the host's\" in each", got)
	}
	n.Exec(t, id, "sh", "-c", "echo new > /v/new && echo new > /v/below/new && chown 56:78 /v/below/new")
	for path, want := range map[string]uint32{"new": 0, "below/new": 56} {
		if uid, _ := ownerOnHost(t, filepath.Join(volume, path)); uid != want {
			t.Errorf("owner of %s on the host: got %d, want %d", path, uid, want)
		}
	}
	if out, err := n.attempt(t, id, "sh", "-c", "echo x > /ro/x || echo x > /ro/below/x"); err == nil {
		t.Errorf("write to a read-only mount succeeded with output %q, want an error", out)
	}

	for name, tc := range map[string]struct {
		change func(*cri.Mount)
		code   codes.Code
		says   string
	}{
		"only uids": {func(m *cri.Mount) { m.GidMappings = nil }, codes.InvalidArgument, "config.mounts[0]: uidMappings and gidMappings"},
		"length 0":  {func(m *cri.Mount) { m.UidMappings = []*cri.IDMapping{{}} }, codes.InvalidArgument, "length 0"},
		"overlap":   {func(m *cri.Mount) { m.GidMappings = append(idMappings(), idMappings()...) }, codes.InvalidArgument, "overlaps"},
		"other image": {func(m *cri.Mount) {
			m.HostPath, m.Image = "", &cri.ImageSpec{Image: volumeImage}
			m.UidMappings[0].HostId++
		}, codes.InvalidArgument, "must be the pod sandbox's"},
		"file system":   {func(m *cri.Mount) { m.HostPath = "/proc/sys" }, codes.FailedPrecondition, "/proc/sys"},
		"below is proc": {func(m *cri.Mount) { m.HostPath = "/" }, codes.FailedPrecondition, "does not support it"},
	} {
		bad := containerConfig(p, "bad", busybox, "true")
		bad.Mounts = []*cri.Mount{mount(volume, "/v", true)}
		tc.change(bad.Mounts[0])
		t.Run(name, func(t *testing.T) { n.notCreated(t, p, bad, tc.code, tc.says) })
	}
}

// TestMappedMountWithoutUserNamespace tests mappings of a mount in a pod without a user
// namespace.
func TestMappedMountWithoutUserNamespace(t *testing.T) {
	n := newNode(t, "unsw", 162)
	n.needUserNamespaces(t)
	dir := filepath.Join(n.Dir, "volume")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p := n.RunPod(t, podConfig("mapped"))
	c := containerConfig(p, "main", busybox, "stat", "-c", "%u:%g", "/v")
	c.Mounts = []*cri.Mount{{
		HostPath: dir, ContainerPath: "/v", UidMappings: []*cri.IDMapping{{HostId: 40, Length: 10}}, GidMappings: []*cri.IDMapping{{HostId: 50, Length: 10}},
	}}
	id := n.CreateContainer(t, p, c)
	n.StartContainer(t, id)
	n.WaitExited(t, id)
	waitFor(t, "the log", func() bool { return strings.Join(logLines(t, p, "main"), "") == "40:50" })
}

// TestUserNamespaceDeclaredVolumes checks that the volumes of an image are writable on a
// read-only root file system, and belong to root of the pod.
func TestUserNamespaceDeclaredVolumes(t *testing.T) {
	n := newNode(t, "unsd", 163)
	n.needUserNamespaces(t)
	n.Pull(t, "registry.test/config:1")
	p := n.RunPod(t, userPodConfig("declared"))
	c := containerConfig(p, "main", "registry.test/config:1", "sleep", "1000")
	c.Args, c.Linux.SecurityContext.ReadonlyRootfs = nil, true
	c.Linux.SecurityContext.RunAsUser, c.Linux.SecurityContext.RunAsGroup = &cri.Int64Value{}, &cri.Int64Value{}
	id := n.CreateContainer(t, p, c)
	n.StartContainer(t, id)
	for _, dir := range []string{"/data", "/var/cache/app", "/var/work"} {
		if got := n.Exec(t, id, "stat", "-c", "%u:%g", dir); got != "0:0" {
			t.Errorf("owner of %s: got %s, want 0:0", dir, got)
		}
	}
	n.Exec(t, id, "touch", "/data/x", "/var/cache/app/x")
	if out, err := n.attempt(t, id, "touch", "/var/work/x"); err == nil {
		t.Errorf("write to the read-only root file system succeeded with output %q, want an error", out)
	}
}

package system

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestSELinuxImageVolumes(t *testing.T) {
	n := selinuxNode(t, "seimage", 227)
	id := n.Pull(t, volumeImage)
	p := n.RunPod(t, podConfig("seimage"))
	config := containerConfig(p, "c", busybox, "sleep", "1000")
	config.Mounts = []*cri.Mount{imageMount(id, "", "/all"), imageMount(id, "data/sub", "/sub"), imageMount(busybox, "bin/busybox", "/box")}
	c := n.CreateContainer(t, p, config)
	n.StartContainer(t, c)
	n.Exec(t, c, "cat", "/all/data/file", "/sub/deep")
	n.Exec(t, c, "/all/bin/hello")
	n.filesHaveLevel(t, c, n.levelOf(t, c), "/all", "/all/data/file", "/sub", "/sub/deep", "/box")
}

// volumeOf makes a directory of the host with a file, with the label that files in /srv have.
func (n *node) volumeOf(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(n.Dir, "volumes", name)
	if err := os.MkdirAll(filepath.Join(dir, "below"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "below", "file"), []byte("content\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/shadow", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", "below", "below/file", "link"} {
		if err := unix.Lsetxattr(filepath.Join(dir, path), "security.selinux", []byte(hostLabel), 0); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// hostLabel is a label that confined containers may not access.
const hostLabel = "system_u:object_r:var_t:s0"

// withVolume starts a container with a volume at /v.
func (n *node) withVolume(t *testing.T, p *pod, name, volume string, relabel bool, options *cri.SELinuxOption) string {
	t.Helper()
	config := containerConfig(p, name, busybox, "sleep", "1000")
	config.Mounts = []*cri.Mount{{HostPath: volume, ContainerPath: "/v", SelinuxRelabel: relabel}}
	config.Linux.SecurityContext.SelinuxOptions = options
	id := n.CreateContainer(t, p, config)
	n.StartContainer(t, id)
	return id
}

// denied checks that a container cannot read the file of its volume, and that the kernel has denied the access.
func (n *node) denied(t *testing.T, id string) {
	t.Helper()
	for _, script := range []string{"cat /v/below/file", "echo x >/v/below/file", "touch /v/new"} {
		out, err := n.attempt(t, id, "sh", "-c", script)
		if err == nil || !strings.Contains(fmt.Sprint(out, err), "Permission denied") {
			t.Errorf("%s: got output %q (error %v), want Permission denied", script, out, err)
		}
	}
}

const useVolume = "cat /v/below/file && echo content >/v/below/file && touch /v/new && rm /v/new"

func TestSELinuxVolumes(t *testing.T) {
	n := selinuxNode(t, "sevol", 228)
	private := n.volumeOf(t, "private")
	shadow := fileLabel(t, "/etc/shadow")
	p, other := n.RunPod(t, podConfig("sevol")), n.RunPod(t, podConfig("sevol-other"))

	// Without selinux_relabel the volume keeps its labels, and the container cannot access it.
	n.denied(t, n.withVolume(t, p, "no-relabel", private, false, nil))
	for _, path := range []string{"", "below", "below/file", "link"} {
		if got := fileLabel(t, filepath.Join(private, path)); got != hostLabel {
			t.Errorf("label of %q without selinux_relabel: got %q, want %q", path, got, hostLabel)
		}
	}

	// With selinux_relabel the volume belongs to the pod.
	owner := n.withVolume(t, p, "owner", private, true, nil)
	n.Exec(t, owner, "sh", "-c", useVolume)
	level := n.levelOf(t, owner)
	for _, path := range []string{"", "below", "below/file", "link"} {
		if got, want := fileLabel(t, filepath.Join(private, path)), "system_u:object_r:container_file_t:"+level; got != want {
			t.Errorf("label of %q: got %q, want %q", path, got, want)
		}
	}
	if got := fileLabel(t, "/etc/shadow"); got != shadow {
		t.Errorf("label of /etc/shadow, a target of a link: got %q, want %q", got, shadow)
	}
	n.Exec(t, n.withVolume(t, p, "same-pod", private, false, nil), "sh", "-c", useVolume)

	// A container of another pod has the same type and other categories.
	n.denied(t, n.withVolume(t, other, "other-pod", private, false, nil))
	// A container with the level of the pod may use the volume of the pod.
	n.Exec(t, n.withVolume(t, other, "level", private, false, &cri.SELinuxOption{Level: level}), "sh", "-c", useVolume)

	// Containers without categories share a volume.
	shared := n.volumeOf(t, "shared")
	for i, p := range []*pod{p, other} {
		id := n.withVolume(t, p, fmt.Sprint("shared", i), shared, true, &cri.SELinuxOption{Level: "s0"})
		n.Exec(t, id, "sh", "-c", useVolume)
	}
	if got := fileLabel(t, filepath.Join(shared, "below", "file")); got != "system_u:object_r:container_file_t:s0" {
		t.Errorf("label of a shared volume: got %q, want level s0", got)
	}
	n.Exec(t, n.withVolume(t, p, "categories", shared, false, nil), "cat", "/v/below/file")

	// A volume may be one file.
	file := filepath.Join(n.volumeOf(t, "single"), "below", "file")
	n.Exec(t, n.withVolume(t, p, "single", file, true, nil), "cat", "/v")
	if got := fileLabel(t, filepath.Dir(file)); got != hostLabel {
		t.Errorf("label of the directory of a volume that is one file: got %q, want %q", got, hostLabel)
	}
}

// TestSELinuxSystemDirectories checks that no request changes the labels of the host's own directories.
func TestSELinuxSystemDirectories(t *testing.T) {
	n := selinuxNode(t, "sesys", 229)
	p := n.RunPod(t, podConfig("sesys"))
	for _, dir := range []string{"/etc", "/usr", "/var/lib"} {
		before := fileLabel(t, dir)
		config := containerConfig(p, "c", busybox, "true")
		config.Mounts = []*cri.Mount{{HostPath: dir, ContainerPath: "/v", SelinuxRelabel: true}}
		r, err := n.RuntimeService.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.ID, Config: config, SandboxConfig: p.Config})
		if err == nil || !strings.Contains(err.Error(), "config.mounts[0].selinux_relabel") {
			t.Errorf("create with volume %s: got container %q (error %v), want an error with selinux_relabel", dir, r.GetContainerId(), err)
		}
		if got := fileLabel(t, dir); got != before {
			t.Errorf("label of %s: got %q, want %q as before", dir, got, before)
		}
	}
}

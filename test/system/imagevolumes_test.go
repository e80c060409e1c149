package system

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const volumeImage = "registry.test/volume:1"

// imageMount returns a mount with a part of an image as a volume.
func imageMount(image, subPath, target string) *cri.Mount {
	return &cri.Mount{Image: &cri.ImageSpec{Image: image}, ImageSubPath: subPath, ContainerPath: target, Readonly: true}
}

// refused requests a container that must be refused, and returns the message of the
// error.
func (n *node) refused(t *testing.T, p *pod, config *cri.ContainerConfig, want codes.Code) string {
	t.Helper()
	r, err := n.RuntimeService.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.ID, Config: config, SandboxConfig: p.Config})
	if status.Code(err) != want {
		t.Errorf("create %s: got container %q (error %v), want %s", config.GetMetadata().GetName(), r.GetContainerId(), err, want)
	}
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestImageVolumes(t *testing.T) {
	n := newNode(t, "imgvol", 200)
	id := n.Pull(t, volumeImage)
	p := n.RunPod(t, podConfig("imgvol"))
	config := containerConfig(p, "c", busybox, "sleep", "1000")
	noexec := imageMount(id, "", "/noexec")
	noexec.MountOptions = []string{"noexec"}
	writable := imageMount(volumeImage, "/data/sub", "/sub") // by tag, and without readonly
	writable.Readonly = false
	config.Mounts = []*cri.Mount{
		imageMount(id, "", "/all"), writable, imageMount(id, "data/file", "/etc/one"), imageMount(id, "inside", "/linked"), noexec,
	}
	c := n.CreateContainer(t, p, config)
	n.StartContainer(t, c)
	for cmd, want := range map[string]string{
		"cat /all/data/file /sub/deep /etc/one /linked/deep": "from the image\ndeep\nfrom the image\ndeep",
		"/all/bin/hello":                    "hello",
		"touch /all/x || echo no":           "no",
		"touch /sub/x || echo no":           "no",
		"echo x >/etc/one || echo no":       "no",
		"/noexec/bin/hello || echo no":      "no",
		"mount -o remount,rw /all||echo no": "no",
	} {
		if got := n.Exec(t, c, "sh", "-c", cmd+" 2>/dev/null"); got != want {
			t.Errorf("%s: got %q, want %q", cmd, got, want)
		}
	}
	for _, target := range []string{"/all", "/sub", "/etc/one", "/noexec"} {
		opts := n.mountOptions(t, c, target)
		for _, o := range []string{"ro", "nosuid", "nodev"} {
			if !opts[o] {
				t.Errorf("mount options of %s: got %v, want %s", target, opts, o)
			}
		}
		if want := target == "/noexec"; opts["noexec"] != want {
			t.Errorf("mount option noexec of %s: got %v, want %v", target, opts["noexec"], want)
		}
	}
	n.imageVolumeStatus(t, c, id)
	user := containerConfig(p, "user", busybox, "/v/bin/nonewprivs")
	user.Linux.SecurityContext.RunAsUser = &cri.Int64Value{Value: 1000}
	user.Mounts = []*cri.Mount{imageMount(id, "", "/v")}
	u := n.CreateContainer(t, p, user)
	n.StartContainer(t, u)
	n.WaitExited(t, u)
	if got := strings.Join(logLines(t, p, "user"), ""); got != "Effective uid: 1000" {
		t.Errorf("output of a set-user-id program of the image: got %q, want effective uid 1000", got)
	}
	if _, err := n.RuntimeService.RemoveContainer(t.Context(), &cri.RemoveContainerRequest{ContainerId: u}); err != nil {
		t.Fatal(err)
	}

	remove := func() error {
		_, err := n.ImageService.RemoveImage(t.Context(), &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: id}})
		return err
	}
	if err := remove(); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("remove the image of a volume in use: got error %v, want FailedPrecondition", err)
	}
	n.Kill()
	n.restart(t)
	if got := n.Exec(t, c, "cat", "/all/data/file"); got != "from the image" {
		t.Errorf("file of the volume after a restart: got %q, want \"from the image\"", got)
	}
	n.imageVolumeStatus(t, c, id)
	if err := remove(); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("remove the image of a volume in use after a restart: got error %v, want FailedPrecondition", err)
	}
	if _, err := n.RuntimeService.RemoveContainer(t.Context(), &cri.RemoveContainerRequest{ContainerId: c}); err != nil {
		t.Fatal(err)
	}
	if err := remove(); err != nil {
		t.Errorf("remove the image after its last container: got error %v, want none", err)
	}
}

// mountOptions returns the options of the mount at the path target in a container.
func (n *node) mountOptions(t *testing.T, c, target string) map[string]bool {
	t.Helper()
	opts := map[string]bool{}
	for line := range strings.Lines(n.Exec(t, c, "cat", "/proc/self/mountinfo")) {
		if f := strings.Fields(line); len(f) > 5 && f[4] == target {
			clear(opts) // later mounts are on top
			for _, o := range strings.Split(f[5], ",") {
				opts[o] = true
			}
		}
	}
	return opts
}

func (n *node) imageVolumeStatus(t *testing.T, c, id string) {
	t.Helper()
	s := n.ContainerStatus(t, c)
	if len(s.GetMounts()) != 5 {
		t.Fatalf("mounts in the status: got %v, want 5", s.GetMounts())
	}
	for _, m := range s.GetMounts() {
		if m.GetImage().GetImageRef() != id || !m.GetReadonly() || m.GetHostPath() != "" {
			t.Errorf("mount in the status: got %v, want it read-only, with image_ref %s", m, id)
		}
	}
	if got := s.GetMounts()[1]; got.GetImage().GetImage() != volumeImage || got.GetImageSubPath() != "/data/sub" {
		t.Errorf("mount in the status: got %v, want image %s and image_sub_path /data/sub of the request", got, volumeImage)
	}
}

func TestImageVolumesRefused(t *testing.T) {
	n := newNode(t, "imgvolno", 201)
	id := n.Pull(t, volumeImage)
	p := n.RunPod(t, podConfig("imgvolno"))
	for name, tc := range map[string]struct {
		mount *cri.Mount
		code  codes.Code
		says  string
	}{
		"absent":        {imageMount("registry.test/absent:1", "", "/v"), codes.NotFound, "ImageVolumeMountFailed"},
		"no name":       {imageMount("", "", "/v"), codes.InvalidArgument, "image is empty"},
		"sub path":      {imageMount(id, "none", "/v"), codes.NotFound, `sub path "none"`},
		"climbing":      {imageMount(id, "../etc", "/v"), codes.InvalidArgument, "image_sub_path"},
		"outside":       {imageMount(id, "out", "/v"), codes.NotFound, "ImageVolumeMountFailed"},
		"host path":     {&cri.Mount{Image: &cri.ImageSpec{Image: id}, HostPath: "/etc", ContainerPath: "/v"}, codes.InvalidArgument, "exclude each other"},
		"bidirectional": {&cri.Mount{Image: &cri.ImageSpec{Image: id}, ContainerPath: "/v", Propagation: cri.MountPropagation_PROPAGATION_BIDIRECTIONAL}, codes.InvalidArgument, "propagation"},
	} {
		config := containerConfig(p, strings.ReplaceAll(name, " ", "-"), busybox, "true")
		config.Mounts = []*cri.Mount{imageMount(id, "data", "/good"), tc.mount}
		if msg := n.refused(t, p, config, tc.code); !strings.Contains(msg, tc.says) || !strings.Contains(msg, "config.mounts[1]") {
			t.Errorf("%s: got error %q, want config.mounts[1] and %q", name, msg, tc.says)
		}
	}
	// The failed requests do not keep the image in use.
	if _, err := n.ImageService.RemoveImage(t.Context(), &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: id}}); err != nil {
		t.Error(err)
	}
}

// TestKillDuringCreateWithImageVolumes checks that a container whose creation was interrupted by a
// kill does not keep the image in use, whether its volumes were mounted or not.
func TestKillDuringCreateWithImageVolumes(t *testing.T) {
	n := newNode(t, "imgvolkill", 202)
	id := n.Pull(t, volumeImage)
	for round := range 4 {
		p := n.RunPod(t, podConfig("imgvolkill"))
		created := make(chan struct{}, 100)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range 100 {
				config := containerConfig(p, fmt.Sprintf("c%d", i), busybox, "true")
				config.Mounts = []*cri.Mount{imageMount(id, "", "/a"), imageMount(id, "data", "/b")}
				req := &cri.CreateContainerRequest{PodSandboxId: p.ID, Config: config, SandboxConfig: p.Config}
				if _, err := n.RuntimeService.CreateContainer(t.Context(), req); err != nil {
					return // the daemon has been killed
				}
				created <- struct{}{}
			}
		}()
		for range 2 + round {
			select {
			case <-created:
			case <-done:
				t.Fatal("a creation failed before the daemon was killed")
			}
		}
		n.Kill()
		<-done
		n.restart(t)
		list, err := n.RuntimeService.ListContainers(t.Context(), &cri.ListContainersRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if got := n.volumeDirs(t); got != len(list.GetContainers()) {
			t.Errorf("containers with volumes: got %d, want %d", got, len(list.GetContainers()))
		}
		n.RemovePod(t, p.ID)
		if got := n.volumeDirs(t); got != 0 {
			t.Errorf("containers with volumes after the removal of the pod: got %d, want 0", got)
		}
	}
	if _, err := n.ImageService.RemoveImage(t.Context(), &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: id}}); err != nil {
		t.Error(err)
	}
}

// volumeDirs returns the number of containers with image volumes.
func (n *node) volumeDirs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(n.Dir, "run", "volumes"))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestImageVolumesInUserNamespace checks that in a user namespace the files of an image
// volume have the owners of the image, like those of the root file system.
func TestImageVolumesInUserNamespace(t *testing.T) {
	n := newNode(t, "imgvolns", 221)
	n.needUserNamespaces(t)
	id := n.Pull(t, volumeImage)
	p := n.RunPod(t, userPodConfig("imgvolns"))
	config := containerConfig(p, "c", busybox, "sleep", "1000")
	config.Mounts = []*cri.Mount{imageMount(id, "", "/all"), imageMount(id, "data/sub", "/sub"), imageMount(busybox, "bin/busybox", "/box")}
	for _, m := range config.Mounts {
		m.UidMappings, m.GidMappings = idMappings(), idMappings()
	}
	c := n.CreateContainer(t, p, config)
	n.StartContainer(t, c)
	if got := n.Exec(t, c, "stat", "-c", "%u:%g", "/all/data/file", "/sub/deep", "/box"); got != "0:0\n0:0\n0:0" {
		t.Errorf("owners of files of the volumes: got %q, want 0:0", got)
	}
	if got := n.Exec(t, c, "sh", "-c", "cat /all/data/file /sub/deep; /all/bin/hello; touch /all/x 2>/dev/null || echo no"); got != "from the image\ndeep\nhello\nno" {
		t.Errorf("output of the commands: got %q, want the content of the image and a failed touch", got)
	}
}

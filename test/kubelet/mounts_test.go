package kubelet

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

const volumeImage = "gcr.io/k8s-staging-cri-tools/test-image-2:latest" // busybox, and an empty file with the name test-image-2

// testImageVolume mounts an image as a read-only volume, and one directory of it.
func testImageVolume(t *testing.T, n *node) {
	c := sh("main", "exec sleep 100000")
	c.VolumeMounts = []corev1.VolumeMount{
		{Name: "image", MountPath: "/image"}, {Name: "image", MountPath: "/part", SubPath: "etc"},
	}
	p := newPod("imagevolume", c)
	p.Spec.Volumes = []corev1.Volume{{Name: "image", VolumeSource: corev1.VolumeSource{
		Image: &corev1.ImageVolumeSource{Reference: volumeImage, PullPolicy: corev1.PullIfNotPresent},
	}}}
	n.runPod(t, p)
	main := container{"imagevolume", "main"}
	const script = "ls /image/test-image-2 /part/passwd; touch /image/x 2>/dev/null || echo read-only"
	if got := n.exec(t, main, script); got != "/image/test-image-2\n/part/passwd\nread-only" {
		t.Errorf("files of the image volume: got %q", got)
	}
}

// testMounts mounts a directory of the host with all options of a pod, except
// recursive read-only mounts, which a kubelet without an API server refuses.
func testMounts(t *testing.T, n *node) {
	host := n.kubelet.path("mounts")
	if err := os.MkdirAll(filepath.Join(host, "sub", "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", filepath.Join(host, "sub"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(filepath.Join(host, "sub"), 0); err != nil {
			t.Error(err)
		}
	})
	mount := func(at string, change func(*corev1.VolumeMount)) corev1.VolumeMount {
		m := corev1.VolumeMount{Name: "host", MountPath: at}
		change(&m)
		return m
	}
	c := sh("main", "exec sleep 100000")
	c.SecurityContext = &corev1.SecurityContext{Privileged: ptr(true)} // bidirectional propagation requires a privileged container
	c.VolumeMounts = []corev1.VolumeMount{
		mount("/ro", func(m *corev1.VolumeMount) { m.ReadOnly = true }),
		mount("/in", func(m *corev1.VolumeMount) { m.MountPropagation = ptr(corev1.MountPropagationHostToContainer) }),
		mount("/both", func(m *corev1.VolumeMount) { m.MountPropagation = ptr(corev1.MountPropagationBidirectional) }),
		mount("/alone", func(*corev1.VolumeMount) {}),
		mount("/file", func(m *corev1.VolumeMount) { m.SubPath = "only" }),
	}
	if err := os.WriteFile(filepath.Join(host, "only"), []byte("one file\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := newPod("mounts", c)
	p.Spec.Volumes = []corev1.Volume{hostPath("host", host)}
	n.runPod(t, p)
	main := container{"mounts", "main"}
	for _, step := range []struct{ script, want string }{
		{"touch /ro/x 2>/dev/null || echo no; touch /ro/sub/x && echo yes", "no\nyes"},
		{"cat /file", "one file"},
		{"mkdir /both/new && mount -t tmpfs none /both/new && touch /both/new/made-inside", ""},
		{"ls /in/new; ls /alone/new", "made-inside"},
	} {
		if got := n.exec(t, main, step.script); got != step.want {
			t.Errorf("%s: got %q, want %q", step.script, got, step.want)
		}
	}
	if _, err := os.Stat(filepath.Join(host, "new", "made-inside")); err != nil {
		t.Errorf("the mount of the container does not exist on the host: %v", err)
	}
	n.exec(t, main, "umount /both/new")
}

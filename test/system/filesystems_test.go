package system

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestFileSystemsOfTheStore keeps images and writable layers on different file systems,
// and tests features in which they differ: whiteouts, extended attributes, hard links,
// synced layers, the usage of a layer.
func TestFileSystemsOfTheStore(t *testing.T) {
	for _, fs := range []struct {
		kind string
		mkfs []string
	}{
		{"ext4", []string{"mkfs.ext4", "-q", "-F"}},
		{"xfs", []string{"mkfs.xfs", "-q", "-f"}},
	} {
		t.Run(fs.kind, func(t *testing.T) { testFileSystem(t, fs.kind, fs.mkfs) })
	}
}

func testFileSystem(t *testing.T, kind string, mkfs []string) {
	n := makeNode("on" + kind)
	root := filepath.Join(n.Dir, "root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(n.Dir, "disk")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 512<<20); err != nil {
		t.Fatal(err)
	}
	command(t, "", append(mkfs, disk)...)
	command(t, "", "mount", "-o", "loop", disk, root)
	t.Cleanup(func() { // the daemon has exited by now
		if err := unix.Unmount(root, 0); err != nil {
			t.Errorf("unmount the store: %v", err)
		}
		if err := os.Remove(disk); err != nil {
			t.Error(err)
		}
	})
	n.Network = n.Bridge("cs"+kind, "10.68.0.0/16")
	n.start(t)

	n.Pull(t, "registry.test/layers:120")
	p := n.RunPod(t, podConfig("store"))
	layered := n.CreateContainer(t, p, containerConfig(p, "layered", "registry.test/layers:120", "sleep", "1000"))
	n.StartContainer(t, layered)
	if got := n.Exec(t, layered, "sh", "-c", "ls /layers | wc -l; cat /layer"); got != "119\n120" {
		t.Errorf("container of 120 layers: got %q, want 119 files and layer 120", got)
	}
	writer := n.run(t, p, "writer", "sleep", "1000")
	const script = `set -e
rm /bin/wget
mv /etc/passwd /etc/moved
rm -rf /home; mkdir /home; echo opaque >/home/file
ln /etc/moved /etc/link
mkdir /deep; dd if=/dev/zero of=/deep/data bs=1M count=8 2>/dev/null`
	n.Exec(t, writer, "sh", "-c", script)
	check := func(when string) {
		t.Helper()
		const look = `ls /bin/wget /etc/passwd 2>/dev/null; ls /home; stat -c %h /etc/moved; stat -c %s /deep/data`
		if got, want := n.Exec(t, writer, "sh", "-c", look), "file\n2\n8388608"; got != want {
			t.Errorf("%s: got %q, want %q", when, got, want)
		}
	}
	check("at first")
	n.Kill()
	n.restart(t)
	check("after a restart of the daemon")

	// Changes in the writable layer do not affect the image.
	fresh := n.run(t, p, "fresh", "sleep", "1000")
	if got := n.Exec(t, fresh, "sh", "-c", "ls /bin/wget /etc/passwd; ls -d /deep 2>/dev/null || true"); got != "/bin/wget\n/etc/passwd" {
		t.Errorf("another container of the image: got %q, want unchanged files of the image", got)
	}
	n.RemovePod(t, p.ID)
	info, err := n.ImageService.ImageFsInfo(t.Context(), &cri.ImageFsInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got := info.GetImageFilesystems()[0].GetFsId().GetMountpoint(); !strings.HasPrefix(got, root) {
		t.Errorf("file system of images: got %q, want %s", got, root)
	}
	if err := n.Stop(); err != nil {
		t.Fatalf("stop the daemon: %v", err)
	}
	if out, err := n.check(); err != nil {
		t.Errorf("check of the store: got error %v, output %s, want no error", err, out)
	}
	n.restart(t)
}

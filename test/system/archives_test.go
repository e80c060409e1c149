package system

import (
	"archive/tar"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// archivedImage is the name of the image of the tests of archives. No registry has it.
const archivedImage = "registry.invalid/archived/app:1"

// archiveImage returns an image with a file that a container can compare: hard links, a set-user-id file, a removed
// file and an opaque directory.
func (n *node) archiveImage(t *testing.T) v1.Image {
	t.Helper()
	setuid := textFile("data/setuid", "s")
	setuid.Mode, setuid.Uid = 0o4755, 7
	link := file{Header: tar.Header{Typeflag: tar.TypeLink, Name: "data/linked", Linkname: "data/setuid", Mode: 0o4755, Uid: 7}}
	lower := layerOf(t, directory("data", 0, 0o755), setuid, link, textFile("data/gone", "g"), directory("data/opaque", 0, 0o750), textFile("data/opaque/lower", "l"))
	upper := layerOf(t, textFile("data/.wh.gone", ""), directory("data/opaque", 3, 0o711), textFile("data/opaque/.wh..wh..opq", ""), textFile("data/opaque/upper", "u"))
	return imageOf(t, v1.Config{Cmd: []string{"sleep", "1000"}, Env: []string{"FROM=archive"}, User: "0"}, append(n.busyboxLayers(t), lower, upper)...)
}

// inspectArchived runs a pod with the image and returns what the container sees.
func (n *node) inspectArchived(t *testing.T, pod string) string {
	t.Helper()
	p := n.RunPod(t, podConfig(pod))
	defer n.RemovePod(t, p.ID)
	id := n.RunContainer(t, p, containerConfig(p, "c", archivedImage))
	return n.Exec(t, id, "sh", "-c", "echo $FROM; cd /data; ls -lnR .; cat setuid linked opaque/*; ls / | wc -l; md5sum /bin/busybox")
}

// loadedArchive is the JSON output of the command load.
type loadedArchive struct {
	Images []struct {
		ID      string
		Names   []string
		Existed bool
	}
	Errors []string
}

func (n *node) load(t *testing.T, args ...string) loadedArchive {
	t.Helper()
	code, stdout, stderr := n.command(t, append([]string{"load", "-o", "json"}, args...)...)
	var r loadedArchive
	if err := json.Unmarshal([]byte(stdout), &r); code != 0 || err != nil || len(r.Images) != 1 {
		t.Fatalf("load %v: exit code %d, %v, %s%s", args, code, err, stdout, stderr)
	}
	return r
}

// TestLoadAndSave loads an image that another program has written, runs it, saves it, removes it, and loads and runs it
// again.
func TestLoadAndSave(t *testing.T) {
	n := newNode(t, "archives", 229)
	img := n.archiveImage(t)
	dir := t.TempDir()
	tag, err := name.NewTag(archivedImage)
	if err != nil {
		t.Fatal(err)
	}
	docker := filepath.Join(dir, "docker.tar")
	if err := tarball.WriteToFile(docker, tag, img); err != nil {
		t.Fatal(err)
	}
	oci, err := layout.Write(filepath.Join(dir, "layout"), empty.Index)
	if err == nil {
		err = oci.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "1"}))
	}
	if err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := n.command(t, "load", docker); code != 0 || !strings.Contains(stdout, archivedImage) || !strings.Contains(stderr, "archive done") {
		t.Fatalf("load: exit code %d, %s%s", code, stdout, stderr)
	}
	want := n.inspectArchived(t, "docker")
	if !strings.HasPrefix(want, "archive\n") || strings.Contains(want, "gone") || strings.Contains(want, "lower") || !strings.Contains(want, "rwsr-xr-x    2 7") {
		t.Errorf("files in the container:\n%s", want)
	}
	config, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	if again := n.load(t, filepath.Join(dir, "layout"), "--name", archivedImage); again.Images[0].ID != config.String() || !again.Images[0].Existed {
		t.Errorf("load of the same image from a directory: got %+v, want the id %s", again, config)
	}
	savedID := ""
	for _, format := range []string{"oci-archive", "docker-archive"} {
		saved := filepath.Join(dir, format+".tar")
		code, _, stderr := n.command(t, "save", archivedImage, "-f", saved, "--format", format)
		if code != 0 || !strings.Contains(stderr, "saved "+archivedImage+" with the id sha256:") {
			t.Fatalf("save: exit code %d, %s", code, stderr)
		}
		n.removeImage(t, archivedImage)
		if out, err := exec.Command("gzip", saved).CombinedOutput(); err != nil {
			t.Fatalf("gzip: %v, %s", err, out)
		}
		id := n.load(t, saved+".gz").Images[0].ID
		if savedID != "" && id != savedID {
			t.Errorf("id of the image that was saved twice: got %s, want %s", id, savedID)
		}
		savedID = id
		if got := n.inspectArchived(t, format); got != want {
			t.Errorf("files in a container of the image from %s:\n%s\nwant\n%s", format, got, want)
		}
	}
	if code, _, stderr := n.command(t, "save", "registry.invalid/none:1"); code != 1 || !strings.Contains(stderr, "not found") {
		t.Errorf("save an unknown image: exit code %d, %s", code, stderr)
	}
	if code, _, stderr := n.command(t, "load", filepath.Join(n.Dir, "config.toml")); code != 1 || !strings.Contains(stderr, "archive") {
		t.Errorf("load a file that is no archive: exit code %d, %s", code, stderr)
	}
}

func (n *node) removeImage(t *testing.T, image string) {
	t.Helper()
	if code, _, stderr := n.command(t, "rmi", image); code != 0 {
		t.Fatalf("remove the image: %s", stderr)
	}
}

// TestArchiveDirectory loads the archives in a directory after a reload and after a start, also of a daemon that was
// killed while a client sent an archive.
func TestArchiveDirectory(t *testing.T) {
	n := newNode(t, "archivedir", 230)
	img := n.archiveImage(t)
	tag, err := name.NewTag(archivedImage)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(n.Dir, "images")
	n.writeFile(t, "images/broken.tar", "broken")
	if err := tarball.WriteToFile(filepath.Join(dir, ".app.tar"), tag, img); err != nil {
		t.Fatal(err)
	}
	n.settings(t, `archive_dirs = ["`+dir+`"]`)
	if code, _, stderr := n.command(t, "reload"); code != 0 {
		t.Fatalf("reload: %s", stderr)
	}
	status := func(want string) {
		t.Helper()
		waitFor(t, "the status "+want, func() bool {
			code, stdout, stderr := n.command(t, "status")
			if code != 0 {
				t.Fatalf("status: exit code %d, %s", code, stderr)
			}
			return strings.Contains(stdout, want)
		})
	}
	status("0 loaded with 0 images, 1 failed")
	status(filepath.Join(dir, "broken.tar") + ": ")
	if err := os.Rename(filepath.Join(dir, ".app.tar"), filepath.Join(dir, "app.tar")); err != nil {
		t.Fatal(err)
	}

	// The daemon is killed while a client sends an archive.
	r, w := io.Pipe()
	cmd := exec.Command(filepath.Join(suite.bin, "criserver"), "load", "--config", filepath.Join(n.Dir, "config.toml"))
	cmd.Stdin = r
	if err := harness.In(n.NetNS, cmd.Start); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 8<<20)); err != nil {
		t.Fatal(err)
	}
	n.Kill()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the command has succeeded, and the daemon was killed")
	}
	n.restart(t)
	n.waitChecked(t)
	status("1 loaded with 1 images, 1 failed")
	if entries, err := os.ReadDir(filepath.Join(n.Dir, "root", "tmp")); err == nil && len(entries) > 0 {
		t.Errorf("temporary files after the kill: %v", entries)
	}
	st, err := n.ImageService.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: archivedImage}})
	if err != nil || !st.GetImage().GetPinned() {
		t.Errorf("image of the archive: got %v, %v, want a pinned image", st.GetImage(), err)
	}
	n.inspectArchived(t, "dir")
	n.removeImage(t, archivedImage)
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	n.waitChecked(t)
	status("1 loaded with 1 images, 1 failed")
	n.removeImage(t, archivedImage)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	n.settings(t)
	if code, _, stderr := n.command(t, "reload"); code != 0 {
		t.Fatalf("reload: %s", stderr)
	}
	n.takeBaseline(t) // archives.json remains
}

// TestLoadFullDiskOfDaemon loads an image into a daemon whose disk is too small.
func TestLoadFullDiskOfDaemon(t *testing.T) {
	n := makeNode("archivedisk")
	root := filepath.Join(n.Dir, "root")
	if err := os.MkdirAll(root, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=300m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	})
	n.start(t)
	large := filepath.Join(t.TempDir(), "large.tar")
	if err := os.WriteFile(large, make([]byte, 200<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := n.command(t, "load", large); code != 1 || !strings.Contains(stderr, "free") {
		t.Errorf("load: exit code %d, %s", code, stderr)
	}
}

package system

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// allowArchives lets CreateContainer restore containers from archives.
func (n *node) allowArchives(t *testing.T) {
	t.Helper()
	n.writeFile(t, "config.toml.d/50-checkpoint.toml", "[checkpoint]\nrestore_from_archives = true\n")
	n.mustReload(t)
}

// TestImageWithIncompleteCheckpoint checks the errors for an image that contains a checkpoint which has no list of
// files, also with a command.
func TestImageWithIncompleteCheckpoint(t *testing.T) {
	n := newNode(t, "ckptimage", 160)
	const image = "registry.test/checkpoint:1"
	n.Pull(t, image)
	p := n.RunPod(t, podConfig("ckptimage"))
	refused := func(says string) {
		t.Helper()
		for _, command := range [][]string{nil, {"true"}} {
			c := containerConfig(p, "c", image, command...)
			_, err := n.RuntimeService.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.ID, Config: c, SandboxConfig: p.Config})
			if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), says) {
				t.Errorf("command %q: got %v, want FailedPrecondition with %q", command, err, says)
			}
		}
	}
	refused("checkpoint.restore_from_archives")
	n.allowArchives(t)
	// Before the first checkpoint of a node without CRIU, the node has no key.
	if _, err := os.Stat(filepath.Join(n.Dir, "root", "checkpoint-key")); err == nil {
		refused("criserver.files")
	}
}

// unchanged keeps a file of an archive.
func unchanged(_, content string) (string, bool) { return content, true }

// archiveImages returns a function that pulls an image with the unpacked files of an archive, as buildah makes it.
// change returns the content of a file in the image, or false for no file.
func (n *node) archiveImages(t *testing.T, location string) func(tag string, change func(name, content string) (string, bool)) (ref string) {
	t.Helper()
	contents := readArchive(t, location)
	reg := newRegistry(t)
	n.trust(t, reg)
	return func(tag string, change func(name, content string) (string, bool)) string {
		t.Helper()
		var files []file
		for name, content := range contents {
			if content, ok := change(name, content); ok && !strings.HasSuffix(name, "/") {
				files = append(files, file{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600}, content})
			}
		}
		img := mutate.Annotations(imageOf(t, v1.Config{}, layerOf(t, files...)), map[string]string{
			"org.criu.checkpoint.container.name": "count",
		}).(v1.Image)
		ref := reg.push(t, "checkpoint:"+tag, img)
		n.Pull(t, ref)
		return ref
	}
}

// TestCreateContainerFromImage restores a container in another pod from an image with the unpacked files of an archive,
// as buildah makes it. Images whose files differ from the archive are refused.
func TestCreateContainerFromImage(t *testing.T) {
	needCRIU(t)
	n := newNode(t, "rstimg", 161)
	p := n.RunPod(t, podConfig("rstimg"))
	c := containerConfig(p, "count", busybox, "sh", "-c", "echo changed >/etc/changed; rm /etc/group; "+counter)
	id := n.RunContainer(t, p, c)
	waitFor(t, "the counter", func() bool { return len(logLines(t, p, "count")) > 3 })
	location := filepath.Join(t.TempDir(), "a.tar")
	if err := n.checkpoint(t, id, location, time.Minute); err != nil {
		t.Fatal(err)
	}
	n.RemovePod(t, p.ID)
	push := n.archiveImages(t, location)
	config := podConfig("rstimg2")
	config.Hostname = p.Config.GetHostname() // the variable HOSTNAME of the container must be equal
	p = n.RunPod(t, config)
	create := func(image string) (string, error) {
		c := proto.CloneOf(c)
		c.Image = &cri.ImageSpec{Image: image, UserSpecifiedImage: image}
		r, err := n.RuntimeService.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.ID, Config: c, SandboxConfig: config})
		return r.GetContainerId(), err
	}
	valid := push("valid", unchanged)
	if _, err := create(valid); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "checkpoint.restore_from_archives") {
		t.Errorf("checkpoints are not allowed: %v", err)
	}
	n.allowArchives(t)
	for name, tc := range map[string]struct {
		change func(name, content string) (string, bool)
		code   codes.Code
		says   string
	}{
		"nolist":  {func(name, content string) (string, bool) { return content, name != "criserver.files" }, codes.FailedPrecondition, "criserver.files"},
		"missing": {func(name, content string) (string, bool) { return content, name != "checkpoint/core-1.img" }, codes.DataLoss, "checkpoint/core-1.img"},
		"changed": {func(name, content string) (string, bool) {
			if name == "rootfs-diff.tar" {
				content = strings.Replace(content, "changed\n", "Changed\n", 1)
			}
			return content, true
		}, codes.DataLoss, "rootfs-diff.tar"},
	} {
		if _, err := create(push(name, tc.change)); status.Code(err) != tc.code || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: got %v, want %v with %q", name, err, tc.code, tc.says)
		}
	}
	restored, err := create(valid)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := create(valid); err != nil || again != restored {
		t.Errorf("the request again: %s, %v, want %s", again, err, restored)
	}
	st := n.ContainerStatus(t, restored)
	if st.GetState() != cri.ContainerState_CONTAINER_CREATED || st.GetImage().GetImage() != valid {
		t.Errorf("status before the start: %v", st)
	}
	// The files of the image were copied, so the container does not need the image.
	if _, err := n.ImageService.RemoveImage(t.Context(), &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: valid}}); err != nil {
		t.Errorf("remove the image of the checkpoint: %v", err)
	}
	n.startRestored(t, restored)
	waitFor(t, "the counter", func() bool { return len(logLines(t, p, "count")) > 3 })
	if first := logLines(t, p, "count")[0]; first == "1" {
		t.Error("the counter has begun again")
	}
	if got := n.Exec(t, restored, "sh", "-c", "cat /etc/changed; test -e /etc/group || echo deleted"); got != "changed\ndeleted" {
		t.Errorf("files: got %q", got)
	}
	n.RemovePod(t, p.ID)
}

// TestDaemonDiesDuringCreateFromImage kills the daemon while it copies the files of an archive from an image. The next
// daemon unmounts the image and removes the container, and a retry succeeds.
func TestDaemonDiesDuringCreateFromImage(t *testing.T) {
	needCRIU(t)
	n := newNode(t, "rstimgdie", 165)
	n.allowArchives(t)
	p := n.RunPod(t, podConfig("rstimgdie"))
	c := containerConfig(p, "count", busybox, "sh", "-c", largeCounter)
	id := n.RunContainer(t, p, c)
	waitFor(t, "the counter", func() bool { return len(logLines(t, p, "count")) > 3 })
	location := filepath.Join(t.TempDir(), "a.tar")
	if err := n.checkpoint(t, id, location, time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := n.RuntimeService.RemoveContainer(t.Context(), &cri.RemoveContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
	before := len(logLines(t, p, "count"))
	image := n.archiveImages(t, location)("valid", unchanged)
	c = proto.CloneOf(c)
	c.Image, c.Metadata.Attempt = &cri.ImageSpec{Image: image}, 1
	create := func() (string, error) {
		r, err := n.RuntimeService.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.ID, Config: c, SandboxConfig: p.Config})
		return r.GetContainerId(), err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = create()
	}()
	if !reaches(n.Dir, "root/restore/*/pages-*.img", 1<<20, done) {
		t.Error("the copy of the files has ended before the daemon is killed")
	}
	n.Kill()
	<-done
	n.restart(t)
	restored, err := create()
	if err != nil {
		t.Fatal(err)
	}
	// No mount of either daemon uses the image any more.
	if _, err := n.ImageService.RemoveImage(t.Context(), &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: image}}); err != nil {
		t.Errorf("remove the image of the checkpoint: %v", err)
	}
	n.StartContainer(t, restored)
	n.countsOn(t, p, before)
	n.RemovePod(t, p.ID)
}

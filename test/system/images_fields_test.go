package system

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func (n *node) imageStatus(t *testing.T, ref string, verbose bool) *cri.ImageStatusResponse {
	t.Helper()
	r, err := n.ImageService.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: ref}, Verbose: verbose})
	if err != nil {
		t.Fatalf("status of image %s: %v", ref, err)
	}
	return r
}

func (n *node) listImages(t *testing.T, filter string) []*cri.Image {
	t.Helper()
	r, err := n.ImageService.ListImages(t.Context(), &cri.ListImagesRequest{Filter: &cri.ImageFilter{Image: &cri.ImageSpec{Image: filter}}})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetImages()
}

func ids(images []*cri.Image) []string {
	var all []string
	for _, i := range images {
		all = append(all, i.GetId())
	}
	return slices.Sorted(slices.Values(all))
}

func TestImageFields(t *testing.T) {
	n := pullNode(t, "imgfields", `pinned = ["*/pinned:*"]`)
	reg := newRegistry(t)
	n.trust(t, reg)
	config := v1.Config{
		User: "1000:50", Labels: map[string]string{"made": "by hand"}, StopSignal: "SIGQUIT", Volumes: map[string]struct{}{"/data": {}},
	}
	img := mutate.Annotations(imageOf(t, config, layerOf(t, textFile("a", "a")), layerOf(t, textFile("b", strings.Repeat("b", 10000)))),
		map[string]string{"org.example.note": "of the manifest"}).(v1.Image)
	one := reg.push(t, "one:1", img)
	two := reg.push(t, "deep/two:2", img)
	pinned := reg.push(t, "pinned:1", small(t, "pinned"))

	id := n.Pull(t, one)
	if got := n.Pull(t, two); got != id {
		t.Errorf("second pull of the image: got id %s, want %s", got, id)
	}
	pinnedID := n.Pull(t, pinned)
	st := n.imageStatus(t, one, false)
	got := st.GetImage()
	repoDigest := reg.host + "/one@" + digestOf(t, img)
	configName, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case got.GetId() != id || id != configName.String():
		t.Errorf("id: got %q in the status and %q from the pull, want %s", got.GetId(), id, configName)
	case !slices.Equal(got.GetRepoTags(), slices.Sorted(slices.Values([]string{one, two}))):
		t.Errorf("repo_tags: got %v, want %s and %s", got.GetRepoTags(), one, two)
	case !slices.Contains(got.GetRepoDigests(), repoDigest) || len(got.GetRepoDigests()) != 2:
		t.Errorf("repo_digests: got %v, want two with %s", got.GetRepoDigests(), repoDigest)
	case got.GetSize() < 10000 || got.GetSize() > 1<<20:
		t.Errorf("size: got %d, want 10000 to %d", got.GetSize(), 1<<20)
	case got.GetUid().GetValue() != 1000 || got.GetUsername() != "":
		t.Errorf("user: got uid %v, username %q, want uid 1000", got.GetUid(), got.GetUsername())
	case !maps.Equal(got.GetSpec().GetAnnotations(), map[string]string{"org.example.note": "of the manifest"}):
		t.Errorf("annotations: got %v, want org.example.note of the manifest", got.GetSpec().GetAnnotations())
	case got.GetPinned() || !n.imageStatus(t, pinned, false).GetImage().GetPinned():
		t.Errorf("pinned: got %t for %s, want only %s pinned", got.GetPinned(), one, pinned)
	case len(st.GetInfo()) > 0:
		t.Errorf("info without verbose: got %v, want none", st.GetInfo())
	}
	t.Run("verbose", func(t *testing.T) { checkVerboseImage(t, n.imageStatus(t, one, true).GetInfo()["info"], img) })
	t.Run("references", func(t *testing.T) {
		hex := strings.TrimPrefix(id, "sha256:")
		for _, ref := range []string{one, two, id, hex, hex[:12], repoDigest} {
			if got := ids(n.listImages(t, ref)); !slices.Equal(got, []string{id}) {
				t.Errorf("list with filter %s: got %v, want %s", ref, got, id)
			}
			if got := n.imageStatus(t, ref, false).GetImage().GetId(); got != id {
				t.Errorf("status of %s: got id %q, want %s", ref, got, id)
			}
		}
		for _, ref := range []string{reg.host + "/one:2", reg.host + "/two:2", "sha256:" + strings.Repeat("0", 64), "absent"} {
			if got := ids(n.listImages(t, ref)); len(got) > 0 {
				t.Errorf("list with filter %s: got %v, want no images", ref, got)
			}
			if got := n.imageStatus(t, ref, true); got.GetImage() != nil || len(got.GetInfo()) > 0 {
				t.Errorf("status of %s: got %v, want no image", ref, got)
			}
		}
	})
	t.Run("stream", func(t *testing.T) {
		stream, err := n.ImageService.StreamImages(t.Context(), &cri.StreamImagesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var streamed []*cri.Image
		for {
			m, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil || len(m.GetImages()) == 0 {
				t.Fatalf("receive: got a message of %d images (error %v), want images", len(m.GetImages()), err)
			}
			streamed = append(streamed, m.GetImages()...)
		}
		stream, err = n.ImageService.StreamImages(t.Context(), &cri.StreamImagesRequest{Filter: &cri.ImageFilter{Image: &cri.ImageSpec{Image: two}}})
		if err != nil {
			t.Fatal(err)
		}
		if m, err := stream.Recv(); err != nil || !slices.Equal(ids(m.GetImages()), []string{id}) {
			t.Errorf("stream with a filter: got %v (error %v), want %s", m, err, id)
		}
		if m, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("stream with a filter, second message: got %v (error %v), want EOF", m, err)
		}
		if want := ids(n.listImages(t, "")); !slices.Equal(ids(streamed), want) || len(want) != 3 {
			t.Errorf("streamed images: got %v, want the listed %v", ids(streamed), want)
		}
	})
	t.Run("remove", func(t *testing.T) {
		remove := func(ref string) {
			if _, err := n.ImageService.RemoveImage(t.Context(), &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: ref}}); err != nil {
				t.Errorf("remove %s: %v", ref, err)
			}
		}
		for _, ref := range []string{one, repoDigest, id, strings.TrimPrefix(id, "sha256:")[:12]} {
			n.Pull(t, one)
			n.Pull(t, two)
			for range 2 { // idempotent
				remove(ref)
				for _, other := range []string{one, two, id, repoDigest} {
					if n.imageStatus(t, other, false).GetImage() != nil {
						t.Errorf("status of %s after the removal of %s: got an image, want none", other, ref)
					}
				}
			}
		}
		remove(pinned) // clients can remove pinned images; only the kubelet does not
		if n.imageStatus(t, pinnedID, false).GetImage() != nil {
			t.Errorf("status of %s after its removal: got an image, want none", pinned)
		}
	})
}

func checkVerboseImage(t *testing.T, text string, img v1.Image) {
	t.Helper()
	var info struct {
		ChainID, ManifestDigest, MediaType, StopSignal, PulledAt string
		Labels, Annotations                                      map[string]string
		Volumes                                                  []string
		Layers                                                   []struct{ DiffID, Digest, ChainID string }
		ImageSpec                                                v1.ConfigFile
	}
	if err := json.Unmarshal([]byte(text), &info); err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatalf("layers of the image: %v", err)
	}
	if len(info.Layers) != len(layers) {
		t.Fatalf("layers: got %+v, want %d", info.Layers, len(layers))
	}
	for i, l := range layers {
		diffID, err := l.DiffID()
		if err != nil || info.Layers[i].DiffID != diffID.String() || info.Layers[i].Digest != digestOf(t, l) {
			t.Errorf("layer %d: got %+v, want diff ID %s, digest %s (error %v)", i, info.Layers[i], diffID, digestOf(t, l), err)
		}
	}
	switch last := info.Layers[len(layers)-1]; {
	case info.ChainID != last.ChainID || info.ChainID == last.DiffID || info.Layers[0].ChainID != info.Layers[0].DiffID:
		t.Errorf("chain IDs: got %s for the image and %+v for the layers, want the chain ID of the last layer for the image", info.ChainID, info.Layers)
	case info.ManifestDigest != digestOf(t, img) || info.MediaType != "application/vnd.oci.image.manifest.v1+json":
		t.Errorf("manifest: got %s with digest %s, want an OCI manifest with digest %s", info.MediaType, info.ManifestDigest, digestOf(t, img))
	case info.Labels["made"] != "by hand" || info.StopSignal != "SIGQUIT" || !slices.Equal(info.Volumes, []string{"/data"}) || info.PulledAt == "":
		t.Errorf("info: got %+v, want the label, stop signal and volume of the image and a time of the pull", info)
	case len(info.ImageSpec.History) != 2 || info.ImageSpec.History[1].CreatedBy != "step 1" || info.ImageSpec.Config.User != "1000:50":
		t.Errorf("imageSpec: got %+v, want two steps of history and user 1000:50", info.ImageSpec)
	}
}

func TestImageFsInfo(t *testing.T) {
	n := pullNode(t, "imgfs")
	reg := newRegistry(t)
	n.trust(t, reg)
	usage := func() (images, containers *cri.FilesystemUsage) {
		t.Helper()
		r, err := n.ImageService.ImageFsInfo(t.Context(), &cri.ImageFsInfoRequest{})
		if err != nil || len(r.GetImageFilesystems()) != 1 || len(r.GetContainerFilesystems()) != 1 {
			t.Fatalf("ImageFsInfo: got %v (error %v), want one image file system and one container file system", r, err)
		}
		images, containers = r.GetImageFilesystems()[0], r.GetContainerFilesystems()[0]
		for _, u := range []*cri.FilesystemUsage{images, containers} {
			if u.GetTimestamp() <= 0 || u.GetFsId().GetMountpoint() != n.Dir+"/root" || u.GetUsedBytes() == nil || u.GetInodesUsed() == nil {
				t.Errorf("usage: got %v, want a timestamp, mountpoint %s/root, bytes and inodes", u, n.Dir)
			}
		}
		return images, containers
	}
	before, _ := usage()
	var files []file
	for _, name := range strings.Split("abcdefghij", "") {
		files = append(files, textFile(name, strings.Repeat(name, 100<<10)))
	}
	ref := reg.push(t, "a:1", imageOf(t, v1.Config{}, layerOf(t, files...)))
	n.Pull(t, ref)
	after, containers := usage()
	bytes := int64(after.GetUsedBytes().GetValue()) - int64(before.GetUsedBytes().GetValue())
	inodes := int64(after.GetInodesUsed().GetValue()) - int64(before.GetInodesUsed().GetValue())
	if bytes < 1000<<10 || bytes > 1100<<10 || inodes < 11 || inodes > 20 {
		t.Errorf("usage of an image of ten files of 100 KiB: got %d bytes and %d inodes, want 1000 to 1100 KiB and 11 to 20 inodes", bytes, inodes)
	}
	if after.GetTimestamp() < before.GetTimestamp() || containers.GetUsedBytes().GetValue() != 0 {
		t.Errorf("usage: got %v before the pull, %v after it, and %v of containers, want a later timestamp and no bytes of containers", before, after, containers)
	}
	if _, err := n.ImageService.RemoveImage(t.Context(), &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: ref}}); err != nil {
		t.Fatal(err)
	}
	if end, _ := usage(); end.GetUsedBytes().GetValue() != before.GetUsedBytes().GetValue() || end.GetInodesUsed().GetValue() != before.GetInodesUsed().GetValue() {
		t.Errorf("usage after the removal of the image: got %v, want %v as before the pull", end, before)
	}
}

// TestContainersShowTheirImage checks the image in the status of containers. The kubelet
// creates containers with the id of an image, and shows users the status.
func TestContainersShowTheirImage(t *testing.T) {
	n := newNode(t, "imgshow", 181)
	p := n.RunPod(t, podConfig("imgshow"))
	id := n.Pull(t, busybox)
	config := containerConfig(p, "c", id, "sleep", "1000")
	config.Image.UserSpecifiedImage = busybox
	config.Image.Annotations = map[string]string{"k": "v"}
	c := n.CreateContainer(t, p, config)
	st := n.ContainerStatus(t, c)
	var repoDigest string
	for _, d := range n.imageStatus(t, id, false).GetImage().GetRepoDigests() {
		if strings.HasPrefix(d, "registry.k8s.io/e2e-test-images/busybox@sha256:") {
			repoDigest = d
		}
	}
	if st.GetImageId() != id || st.GetImageRef() != repoDigest || repoDigest == "" {
		t.Errorf("image in the status: got image_id %q, image_ref %q, want %q, %q", st.GetImageId(), st.GetImageRef(), id, repoDigest)
	}
	spec := st.GetImage()
	if spec.GetImage() != busybox || spec.GetUserSpecifiedImage() != busybox || spec.GetAnnotations()["k"] != "v" {
		t.Errorf("image spec in the status: got %v, want %s with the annotation of the request", spec, busybox)
	}
	list, err := n.RuntimeService.ListContainers(t.Context(), &cri.ListContainersRequest{Filter: &cri.ContainerFilter{Id: c}})
	if err != nil || len(list.GetContainers()) != 1 {
		t.Fatalf("list containers: got %v (error %v), want one", list, err)
	}
	if l := list.GetContainers()[0]; l.GetImageId() != id || l.GetImageRef() != repoDigest || l.GetImage().GetImage() != busybox {
		t.Errorf("image in the list: got image_id %q, image_ref %q, image %q, want %q, %q, %q",
			l.GetImageId(), l.GetImageRef(), l.GetImage().GetImage(), id, repoDigest, busybox)
	}
	// An image with a container cannot be removed.
	for _, state := range []string{"created", "running", "exited"} {
		switch state {
		case "running":
			n.StartContainer(t, c)
		case "exited":
			if _, err := n.RuntimeService.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: c}); err != nil {
				t.Fatal(err)
			}
		}
		for _, ref := range []string{busybox, id, repoDigest} {
			_, err := n.ImageService.RemoveImage(t.Context(), &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: ref}})
			if status.Code(err) != codes.FailedPrecondition || !strings.Contains(fmt.Sprint(err), c) {
				t.Errorf("remove image %s of a container in state %s: got error %v, want FailedPrecondition with the id of the container", ref, state, err)
			}
		}
	}
	if _, err := n.RuntimeService.RemoveContainer(t.Context(), &cri.RemoveContainerRequest{ContainerId: c}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.ImageService.RemoveImage(t.Context(), &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: id}}); err != nil {
		t.Errorf("remove the image after its container: got error %v, want none", err)
	}
	n.Pull(t, busybox)
}

// TestDeclaredVolumes checks that the volumes that an image declares have the content and
// the owners of the image, and are writable on a read-only root file system.
func TestDeclaredVolumes(t *testing.T) {
	n := newNode(t, "imgdecl", 182)
	reg := newRegistry(t)
	n.trust(t, reg)
	base := n.busyboxLayers(t)
	declared := map[string]struct{}{"/data": {}, "/made/here": {}, "/etc": {}, "/": {}, "/proc": {}, "/mine": {}, "/out": {}}
	img := imageOf(t, v1.Config{Volumes: declared, User: "1000", Cmd: []string{"sh"}}, append(base,
		layerOf(t, directory("data", 1000, 0o750), textFile("data/from-image", "content"), symlink("out", "../../../../../.."), directory("mine", 0, 0o755)))...)
	n.Pull(t, reg.push(t, "declared:1", img))
	p := n.RunPod(t, podConfig("imgdecl"))
	host := t.TempDir()
	for name, readonly := range map[string]bool{"writable": false, "readonly": true} {
		config := containerConfig(p, name, reg.host+"/declared:1", "sleep", "1000")
		config.Linux.SecurityContext.ReadonlyRootfs = readonly
		config.Mounts = []*cri.Mount{{HostPath: host, ContainerPath: "/mine", Readonly: true}}
		c := n.CreateContainer(t, p, config)
		n.StartContainer(t, c)
		sh := func(script string) string { return n.Exec(t, c, "sh", "-c", script+" 2>/dev/null") }
		for script, want := range map[string]string{
			"cat /data/from-image":                        "content",
			"stat -c %u:%g:%a /data":                      "1000:1000:750",
			"stat -c %u:%a /made/here":                    "0:755",
			"echo x >/data/new && cat /data/new":          "x",
			"touch /mine/x || echo no":                    "no", // the mount of the request replaces the volume
			"grep -c imgdecl /etc/hosts":                  "2",  // the volume does not hide the file of the pod
			"test -d /proc/self/fd && echo kernel":        "kernel",
			"echo 1 >/proc/sys/kernel/sysrq || echo no":   "no",
			"touch /x || echo no":                         "no",
			"test -e /out/data/from-image && echo inside": "inside",
		} {
			if got := sh(script); got != want {
				t.Errorf("%s: %s: got %q, want %q", name, script, got, want)
			}
		}
	}
}

package server

import (
	"encoding/json"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/image"
)

func TestImages(t *testing.T) {
	img := image.Image{ID: "sha256:aa", RepoTags: []string{"r/x:1"}, Size: 7}
	img.Config.Config.User = "1000:50"
	s := New(Config{Images: &fakeImages{list: []image.Image{img}}})
	st, err := s.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: "unknown"}})
	if err != nil || st.GetImage() != nil {
		t.Errorf("status of an unknown image: %v, %v; want an empty answer", st, err)
	}
	for _, ref := range []string{"", "sha256:aa"} {
		l, err := s.ListImages(t.Context(), &cri.ListImagesRequest{Filter: &cri.ImageFilter{Image: &cri.ImageSpec{Image: ref}}})
		if err != nil || len(l.GetImages()) != 1 || l.GetImages()[0].GetUid().GetValue() != 1000 || l.GetImages()[0].GetUsername() != "" {
			t.Errorf("filter %q: %v, %v", ref, l, err)
		}
	}
	if l, err := s.ListImages(t.Context(), &cri.ListImagesRequest{Filter: &cri.ImageFilter{Image: &cri.ImageSpec{Image: "other"}}}); err != nil || len(l.GetImages()) != 0 {
		t.Errorf("list of an unknown image: %v, %v", l, err)
	}
}

// TestImageUser checks the user in the status of an image, by which the kubelet
// enforces runAsNonRoot.
func TestImageUser(t *testing.T) {
	for user, want := range map[string]*cri.Image{
		"0":        {Uid: &cri.Int64Value{}},
		"1000:50":  {Uid: &cri.Int64Value{Value: 1000}},
		"+5":       {Username: "+5"},
		"www:data": {Username: "www"},
		"":         {},
	} {
		var img image.Image
		img.Config.Config.User = user
		got := imageItem(img)
		if (got.Uid == nil) != (want.Uid == nil) || got.GetUid().GetValue() != want.GetUid().GetValue() || got.Username != want.Username {
			t.Errorf("USER %q: uid %v, username %q", user, got.Uid, got.Username)
		}
	}
}

func TestVerboseImageStatus(t *testing.T) {
	img := image.Image{
		ID: "sha256:aa", Size: 7, Manifest: "sha256:bb", MediaType: "application/vnd.oci.image.manifest.v1+json",
		Annotations: map[string]string{"of": "manifest"}, RawConfig: []byte(`{"history":[{"created_by":"hand"}]}`),
		Layers: []image.Layer{{DiffID: "sha256:d1", Digest: "sha256:b1", ChainID: "sha256:c1", Size: 5}, {DiffID: "sha256:d2", Digest: "sha256:b2", ChainID: "sha256:c2", Size: 2}},
	}
	img.Config.Config.Labels = map[string]string{"of": "config"}
	img.Config.Config.Volumes = map[string]struct{}{"/b": {}, "/a": {}}
	img.Config.Config.StopSignal = "SIGQUIT"
	s := New(Config{Images: &fakeImages{list: []image.Image{img}}})
	req := &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: "sha256:aa"}}
	st, err := s.ImageStatus(t.Context(), req)
	if err != nil || len(st.GetInfo()) > 0 || st.GetImage().GetSpec().GetAnnotations()["of"] != "manifest" {
		t.Errorf("status that is not verbose: %v, %v", st, err)
	}
	req.Verbose = true
	if st, err = s.ImageStatus(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	var info struct {
		ChainID, ManifestDigest, MediaType, StopSignal string
		Labels                                         map[string]string
		Volumes                                        []string
		Layers                                         []struct {
			DiffID, Digest, ChainID string
			Size                    int
		}
		ImageSpec struct {
			History []struct {
				CreatedBy string `json:"created_by"`
			}
		}
	}
	if err := json.Unmarshal([]byte(st.GetInfo()["info"]), &info); err != nil {
		t.Fatal(err)
	}
	if info.ChainID != "sha256:c2" || info.ManifestDigest != "sha256:bb" || info.Labels["of"] != "config" || info.StopSignal != "SIGQUIT" ||
		strings.Join(info.Volumes, " ") != "/a /b" || len(info.Layers) != 2 || info.Layers[1].Size != 2 || info.ImageSpec.History[0].CreatedBy != "hand" {
		t.Errorf("info %+v", info)
	}
}

// TestListedAnnotations checks that the annotations of a few images cannot make the
// list of images too large for a message.
func TestListedAnnotations(t *testing.T) {
	img := image.Image{ID: "sha256:aa", Annotations: map[string]string{"a": "b", "long": strings.Repeat("x", maxListedAnnotations)}}
	if a := imageItem(img).GetSpec().GetAnnotations(); len(a) > 0 {
		t.Errorf("%d annotations beyond the bound are listed", len(a))
	}
	delete(img.Annotations, "long")
	if a := imageItem(img).GetSpec().GetAnnotations(); a["a"] != "b" {
		t.Errorf("annotations %v", a)
	}
}

func TestImageRef(t *testing.T) {
	img := image.Image{
		ID: "sha256:aa", Manifest: "sha256:bb", RepoTags: []string{"r/x:1"},
		RepoDigests: []string{"docker.io/library/x@sha256:dd", "other/x@sha256:cc", "r/x@sha256:bb", "r/x@sha256:cc"},
	}
	short := image.Image{ID: "sha256:bb", RepoDigests: []string{"docker.io/library/y@sha256:cc", "search/y@sha256:cc"}}
	s := New(Config{Images: &fakeImages{list: []image.Image{img, short, {ID: "sha256:ee"}}}})
	for _, c := range []struct{ id, ref, want string }{
		{"sha256:aa", "r/x:1", "r/x@sha256:cc"}, // the digest of the index, which the tag refers to
		{"sha256:aa", "other/x:2", "other/x@sha256:cc"},
		{"sha256:aa", "x", "docker.io/library/x@sha256:dd"}, // the full name of a short name
		{"sha256:bb", "y", "search/y@sha256:cc"},            // the first search registry has priority
		{"sha256:aa", "r:5000/y/x:1", "docker.io/library/x@sha256:dd"},
		{"sha256:ee", "r/x:1", "sha256:ee"}, // an image without names
		{"sha256:ff", "r/x:1", "sha256:ff"}, // a removed image
	} {
		snap := &container.Snapshot{ImageID: c.id, ImageRef: c.ref, Config: &cri.ContainerConfig{
			Image: &cri.ImageSpec{Image: c.id, UserSpecifiedImage: c.ref, Annotations: map[string]string{"k": "v"}},
		}}
		st := s.containerStatus(snap)
		if st.GetImageRef() != c.want || st.GetImageId() != c.id || s.containerItem(snap).GetImageRef() != c.want {
			t.Errorf("%s %s: image_ref %q, image_id %q; want %q", c.id, c.ref, st.GetImageRef(), st.GetImageId(), c.want)
		}
		if spec := st.GetImage(); spec.GetImage() != c.ref || spec.GetUserSpecifiedImage() != c.ref || spec.GetAnnotations()["k"] != "v" {
			t.Errorf("image %v", spec)
		}
	}
}

// TestImageRefOfImageVolume checks that image_ref of a mount is the id that PullImage
// returns.
func TestImageRefOfImageVolume(t *testing.T) {
	img := image.Image{ID: "sha256:aa", RepoDigests: []string{"r/x@sha256:cc"}}
	s := New(Config{Images: &fakeImages{list: []image.Image{img}}})
	pulled, err := s.PullImage(t.Context(), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: "sha256:aa"}})
	if err != nil {
		t.Fatal(err)
	}
	st := s.containerStatus(&container.Snapshot{ImageID: "sha256:aa", Config: &cri.ContainerConfig{}, Mounts: []*cri.Mount{
		{ContainerPath: "/v", Image: &cri.ImageSpec{Image: "r/x:1", ImageRef: "sha256:aa"}},
	}})
	if got := st.GetMounts()[0].GetImage().GetImageRef(); got != pulled.GetImageRef() {
		t.Errorf("image_ref %q, PullImage returned %q", got, pulled.GetImageRef())
	}
}

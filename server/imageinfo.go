package server

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/image"
)

// maxAnnotations bounds, in bytes, the annotations of an image in answers. An
// image can bring megabytes of them, and the kubelet asks for all images at
// once; a verbose status has them all.
const maxAnnotations = 64 << 10

// annotations are those of an image's manifest; none at all if they are too
// many, rather than some.
func annotations(img image.Image) map[string]string {
	size := 0
	for k, v := range img.Annotations {
		size += len(k) + len(v)
	}
	if size > maxAnnotations {
		return nil
	}
	return img.Annotations
}

// imageInfo is what a verbose status adds. The names are those of other
// runtimes where they have the same thing.
func imageInfo(img image.Image) (map[string]string, error) {
	info := struct {
		ChainID     string            `json:"chainID,omitempty"`
		Manifest    string            `json:"manifestDigest"`
		MediaType   string            `json:"mediaType"`
		Annotations map[string]string `json:"annotations,omitempty"`
		Labels      map[string]string `json:"labels,omitempty"`
		StopSignal  string            `json:"stopSignal,omitempty"`
		Volumes     []string          `json:"volumes,omitempty"`
		PulledAt    time.Time         `json:"pulledAt"`
		Layers      []layerInfo       `json:"layers"`
		ImageSpec   json.RawMessage   `json:"imageSpec"` // with the history
	}{
		Manifest: img.Manifest.String(), MediaType: img.MediaType, Annotations: img.Annotations,
		Labels: img.Config.Config.Labels, StopSignal: img.Config.Config.StopSignal,
		Volumes: slices.Sorted(maps.Keys(img.Config.Config.Volumes)), PulledAt: img.PulledAt, Layers: []layerInfo{}, ImageSpec: img.RawConfig,
	}
	for _, l := range img.Layers {
		info.Layers = append(info.Layers, layerInfo{l.DiffID.String(), l.Digest.String(), l.ChainID.String(), l.Size})
		info.ChainID = l.ChainID.String()
	}
	return verbose(info)
}

// layerInfo is one layer of an image, the lowest first.
type layerInfo struct {
	DiffID  string `json:"diffID"`
	Digest  string `json:"digest"` // of the blob in the registry
	ChainID string `json:"chainID"`
	Size    uint64 `json:"size"` // bytes on disk
}

// digestedRef is the image in use as the CRI wants it shown: by repository and
// digest. Of several names it is the one that the container's image was asked
// for by, and of an index and its manifest the index. An image without names is
// shown by its id.
func (s *Server) digestedRef(id, asked string) string {
	img, err := s.cfg.Images.Get(id)
	if err != nil || len(img.RepoDigests) == 0 {
		return id
	}
	meant := s.meant(asked, img.RepoDigests)
	best, points := "", -1
	for _, ref := range img.RepoDigests {
		repo, digest, _ := strings.Cut(ref, "@")
		p := 0
		if i := slices.Index(meant, repo); i >= 0 {
			p += 2 * (len(meant) - i)
		}
		if digest != img.Manifest.String() {
			p++
		}
		if p > points {
			best, points = ref, p
		}
	}
	return best
}

// meant returns the repositories that asked can stand for, the most likely first.
// It returns nil if all digests are of one repository: then there is no choice, and
// a short name costs a look into the files of aliases.
func (s *Server) meant(asked string, digests []string) []string {
	first, _, _ := strings.Cut(digests[0], "@")
	if !slices.ContainsFunc(digests, func(ref string) bool { return !strings.HasPrefix(ref, first+"@") }) {
		return nil
	}
	return s.cfg.Images.Repositories(asked)
}

// pulls is what a verbose Status says of the pulls under way.
func (s *Server) pulls() (string, error) {
	running := s.cfg.Images.Pulls()
	if running == nil {
		running = []image.PullProgress{}
	}
	b, err := json.Marshal(running)
	return string(b), err
}

// imageSpec is the image as it was asked for: the kubelet creates containers by
// the id that a pull gave it, and shows users the name.
func imageSpec(c *container.Snapshot) *cri.ImageSpec {
	asked := c.Config.GetImage()
	return &cri.ImageSpec{
		Image: c.ImageRef, Annotations: asked.GetAnnotations(),
		UserSpecifiedImage: asked.GetUserSpecifiedImage(), RuntimeHandler: asked.GetRuntimeHandler(), ImageRef: asked.GetImageRef(),
	}
}

package server

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container/containerspec"
	"github.com/criserver/criserver/image"
)

// imageItem returns an image as an item of a list, which is also its status.
func imageItem(img image.Image) *cri.Image {
	user := containerspec.ParseImageUser(img.Config.Config.User)
	item := &cri.Image{
		Id:          img.ID.String(),
		RepoTags:    img.RepoTags,
		RepoDigests: img.RepoDigests,
		Size:        img.Size,
		Username:    user.Name,
		Spec:        &cri.ImageSpec{Image: img.ID.String(), Annotations: listedAnnotations(img)},
		Pinned:      img.Pinned,
	}
	if user.IsID {
		item.Uid = &cri.Int64Value{Value: user.ID}
	}
	return item
}

// maxListedAnnotations bounds the annotations of an image in lists, in bytes. An
// image can have megabytes of annotations, and the kubelet lists all images at once.
// The info of a verbose status contains all annotations.
const maxListedAnnotations = 64 << 10

// listedAnnotations returns the annotations of the image's manifest, or nil if they
// exceed the bound. A part of the annotations could mislead a client.
func listedAnnotations(img image.Image) map[string]string {
	size := 0
	for k, v := range img.Annotations {
		size += len(k) + len(v)
	}
	if size > maxListedAnnotations {
		return nil
	}
	return img.Annotations
}

// imageInfo returns the info of a verbose status. The JSON names are the ones that
// other runtimes use, where these have the same field.
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
		ImageSpec   json.RawMessage   `json:"imageSpec"` // the image config with its history
	}{
		Manifest: img.Manifest.String(), MediaType: img.MediaType, Annotations: img.Annotations,
		Labels: img.Config.Config.Labels, StopSignal: img.Config.Config.StopSignal,
		Volumes: slices.Sorted(maps.Keys(img.Config.Config.Volumes)), PulledAt: img.PulledAt, Layers: []layerInfo{}, ImageSpec: img.RawConfig,
	}
	for _, l := range img.Layers {
		info.Layers = append(info.Layers, layerInfo{l.DiffID.String(), l.Digest.String(), l.ChainID.String(), l.Size})
		info.ChainID = l.ChainID.String() // the chain ID of the last layer is the chain ID of the image
	}
	return verboseInfo(info)
}

// layerInfo describes one layer of an image. The lowest layer is the first.
type layerInfo struct {
	DiffID  string `json:"diffID"`
	Digest  string `json:"digest"` // of the blob in the registry
	ChainID string `json:"chainID"`
	Size    uint64 `json:"size"` // bytes on disk
}

// imageRef returns the "digested reference to the image in use" of the CRI: the
// repository and the digest of the image with the given id. Of several references,
// it prefers the repository that requested refers to, and then the digest of an
// index to the digest of a manifest. It returns the id for an image without references
// and for an image that was removed.
func (s *Server) imageRef(id, requested string) string {
	img, err := s.cfg.Images.Get(id)
	if err != nil || len(img.RepoDigests) == 0 {
		return id
	}
	repositories := s.candidateRepositories(requested, img.RepoDigests)
	best, bestScore := "", -1
	for _, ref := range img.RepoDigests {
		repo, digest, _ := strings.Cut(ref, "@")
		score := 0
		if i := slices.Index(repositories, repo); i >= 0 {
			score += 2 * (len(repositories) - i)
		}
		if digest != img.Manifest.String() {
			score++
		}
		if score > bestScore {
			best, bestScore = ref, score
		}
	}
	return best
}

// candidateRepositories returns the repositories that requested can refer to, the
// most likely first. It returns nil if all repository digests have the same
// repository: then there is no choice, and the resolution of a short name would read
// the files of aliases for nothing.
func (s *Server) candidateRepositories(requested string, repoDigests []string) []string {
	first, _, _ := strings.Cut(repoDigests[0], "@")
	if !slices.ContainsFunc(repoDigests, func(ref string) bool { return !strings.HasPrefix(ref, first+"@") }) {
		return nil
	}
	return s.cfg.Images.Repositories(requested)
}

package admin

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/image"
	"github.com/criserver/criserver/image/layer"
)

// ImageStore is the image store. *image.Manager implements ImageStore.
type ImageStore interface {
	Get(ref string) (image.Image, error)
	List() []image.Image
	StoredLayer(id digest.Digest) (*layer.Layer, bool)
	ImageContainers(id image.ID) []string
	LayerContainers(id digest.Digest) []string
	ContainerRootFS(containerID string) (image.ContainerRootFS, error)
	// FreedBytes returns the bytes that the removal of an image frees.
	FreedBytes(img *image.Image) uint64
	Remove(ctx context.Context, ref string) error
	Prune(ctx context.Context, o image.PruneOptions) (removed []image.Removal, young int, err error)
	Pull(ctx context.Context, req image.PullRequest) (image.Image, error)
	// PullProgressOf returns the progress of the running pull of a request.
	PullProgressOf(req image.PullRequest) (progress image.PullProgress, ok bool)
	Load(ctx context.Context, req image.LoadRequest) ([]image.LoadedImage, error)
	// LoadProgress returns the progress of the running load with a key.
	LoadProgress(key string) (progress image.PullProgress, ok bool)
	Save(ctx context.Context, w io.Writer, req image.SaveRequest) ([]image.SavedImage, error)
}

// GetImageLayers returns the layers of an image, where they come from and who uses them.
//
// Errors: NotFound if the image does not exist. InvalidArgument if the name is empty, malformed or
// ambiguous.
func (s *Server) GetImageLayers(_ context.Context, req *adminv1.GetImageLayersRequest) (*adminv1.ImageLayers, error) {
	if req.GetImage() == "" {
		return nil, fmt.Errorf("image: must not be empty: %w", errdefs.ErrInvalidArgument)
	}
	img, err := s.cfg.Images.Get(req.GetImage())
	if err != nil {
		return nil, err
	}
	resp := &adminv1.ImageLayers{
		Id: img.ID.String(), Tags: img.RepoTags, Digests: img.RepoDigests, Size: img.Size,
		Created: timestamp(img.Config.Created), Pulled: timestamppb.New(img.PulledAt),
		Config: imageConfig(&img.Config), Containers: s.cfg.Images.ImageContainers(img.ID),
	}
	all := s.cfg.Images.List()
	for _, step := range img.Steps() {
		resp.Steps = append(resp.Steps, s.imageStep(&img, step, all))
	}
	return resp, nil
}

func (s *Server) imageStep(img *image.Image, step image.Step, all []image.Image) *adminv1.ImageStep {
	out := &adminv1.ImageStep{}
	if h := step.History; h != nil {
		out.Command, out.Comment, out.Created = h.CreatedBy, h.Comment, timestamp(h.Created)
	}
	if step.Layer < 0 {
		return out
	}
	l := img.Layers[step.Layer]
	out.Layer = &adminv1.ImageLayer{
		DiffId: l.DiffID.String(), Digest: l.Digest.String(), Size: l.Size,
		SharedWith: sharedWith(img.ID, l.DiffID, all), Containers: s.cfg.Images.LayerContainers(l.DiffID),
	}
	if stored, ok := s.cfg.Images.StoredLayer(l.DiffID); ok {
		blob, _ := stored.Blob(l.Digest)
		out.Layer.CompressedSize = max(0, blob.Size)
		out.Layer.Entries = int32(stored.Entries) //nolint:gosec // the configuration limits the number of entries
		out.Layer.Unpacked, out.Layer.Age = timestamppb.New(stored.Added), durationpb.New(time.Since(stored.Added))
	}
	return out
}

// sharedWith returns the names of the other images that have a layer.
func sharedWith(id image.ID, diffID digest.Digest, all []image.Image) []string {
	var names []string
	for _, other := range all {
		if other.ID != id && slices.ContainsFunc(other.Layers, func(l image.Layer) bool { return l.DiffID == diffID }) {
			names = append(names, displayName(&other))
		}
	}
	slices.Sort(names)
	return names
}

// displayName returns a name of an image, or the id of an image without a name.
func displayName(img *image.Image) string {
	for _, names := range [][]string{img.RepoTags, img.RepoDigests} {
		if len(names) > 0 {
			return names[0]
		}
	}
	return img.ID.String()
}

func imageConfig(c *ispec.Image) *adminv1.ImageConfig {
	out := &adminv1.ImageConfig{
		Entrypoint: c.Config.Entrypoint, Cmd: c.Config.Cmd, User: c.Config.User, WorkingDir: c.Config.WorkingDir,
		EnvCount: int32(len(c.Config.Env)), //nolint:gosec // the size of a config is limited
		Ports:    slices.Sorted(maps.Keys(c.Config.ExposedPorts)), Volumes: slices.Sorted(maps.Keys(c.Config.Volumes)),
		Labels: c.Config.Labels, StopSignal: c.Config.StopSignal, Platform: c.OS + "/" + c.Architecture,
	}
	if c.Variant != "" {
		out.Platform += "/" + c.Variant
	}
	return out
}

// timestamp returns a time, or nil for an unknown time.
func timestamp(t *time.Time) *timestamppb.Timestamp {
	if t == nil || t.IsZero() {
		return nil
	}
	return timestamppb.New(*t)
}

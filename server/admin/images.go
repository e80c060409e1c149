package admin

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/image"
)

// ListImages returns all images, ordered by their names.
func (s *Server) ListImages(context.Context, *adminv1.ListImagesRequest) (*adminv1.ListImagesResponse, error) {
	all := s.cfg.Images.List()
	slices.SortFunc(all, func(a, b image.Image) int { return cmp.Compare(displayName(&a), displayName(&b)) })
	resp := &adminv1.ListImagesResponse{}
	for i := range all {
		img := &all[i]
		resp.Images = append(resp.Images, &adminv1.ListedImage{
			Id: img.ID.String(), Tags: img.RepoTags, Digests: img.RepoDigests, Size: img.Size, UniqueSize: s.cfg.Images.FreedBytes(img),
			Pinned: img.Pinned, Created: timestamp(img.Config.Created), Pulled: timestamppb.New(img.PulledAt),
			Containers: s.cfg.Images.ImageContainers(img.ID),
		})
	}
	return resp, nil
}

// RemoveImage removes an image with all its names.
//
// Errors: NotFound if the image does not exist. FailedPrecondition if a container uses the image.
// InvalidArgument if the name is empty, malformed or ambiguous.
func (s *Server) RemoveImage(ctx context.Context, req *adminv1.RemoveImageRequest) (*adminv1.RemovedImage, error) {
	if req.GetName() == "" {
		return nil, fmt.Errorf("name: must not be empty: %w", errdefs.ErrInvalidArgument)
	}
	img, err := s.cfg.Images.Get(req.GetName())
	if err != nil {
		return nil, err
	}
	freed := s.cfg.Images.FreedBytes(&img)
	if err := s.cfg.Images.Remove(ctx, img.ID.String()); err != nil {
		return nil, err
	}
	return removedImage(&img, freed), nil
}

func removedImage(img *image.Image, freed uint64) *adminv1.RemovedImage {
	return &adminv1.RemovedImage{Id: img.ID.String(), Names: slices.Concat(img.RepoTags, img.RepoDigests), Freed: freed}
}

// PruneImages removes the images that no container uses and that are not pinned.
//
// Errors: InvalidArgument if min_age is negative.
func (s *Server) PruneImages(ctx context.Context, req *adminv1.PruneImagesRequest) (*adminv1.PruneImagesResponse, error) {
	age := req.GetMinAge().AsDuration()
	if age < 0 {
		return nil, fmt.Errorf("min_age: must not be negative, is %s: %w", age, errdefs.ErrInvalidArgument)
	}
	removed, young, err := s.cfg.Images.Prune(ctx, image.PruneOptions{All: req.GetAll(), DryRun: req.GetDryRun(), MinAge: age})
	if err != nil {
		return nil, err
	}
	resp := &adminv1.PruneImagesResponse{TooYoung: int32(young)} //nolint:gosec // the number of images
	for _, r := range removed {
		if r.Err != nil {
			resp.Errors = append(resp.Errors, fmt.Sprintf("%s: %v", displayName(&r.Image), r.Err))
			continue
		}
		resp.Freed += r.Freed
		resp.Images = append(resp.Images, removedImage(&r.Image, r.Freed))
	}
	return resp, nil
}

// progressInterval is the time between two messages about the progress of a pull.
const progressInterval = 200 * time.Millisecond

// PullImage pulls an image and sends the progress. The pull ends with the call unless another client
// waits for the same pull.
//
// PullImage returns the errors of image.Manager.Pull.
func (s *Server) PullImage(req *adminv1.PullImageRequest, out grpc.ServerStreamingServer[adminv1.PullImageResponse]) error {
	if req.GetName() == "" {
		return fmt.Errorf("name: must not be empty: %w", errdefs.ErrInvalidArgument)
	}
	pull := image.PullRequest{Ref: req.GetName(), Auth: pullAuth(req.GetCredential())}
	var img image.Image
	err := withProgress(out.Context(), func(ctx context.Context) (err error) {
		img, err = s.cfg.Images.Pull(ctx, pull)
		return err
	}, func() error {
		if p, ok := s.cfg.Images.PullProgressOf(pull); ok {
			return out.Send(&adminv1.PullImageResponse{Progress: pullProgress(&p)})
		}
		return nil
	})
	if err != nil {
		return err
	}
	return out.Send(&adminv1.PullImageResponse{Id: img.ID.String()})
}

// withProgress runs an operation, and calls report several times a second until the operation ends. If report fails,
// withProgress cancels the operation, waits for its end, and returns the error of report.
func withProgress(ctx context.Context, run func(context.Context) error, report func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var runErr error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runErr = run(ctx)
	}()
	tick := time.NewTicker(progressInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := report(); err != nil {
				cancel()
				<-done
				return err
			}
		case <-done:
			return runErr
		}
	}
}

func pullAuth(c *adminv1.PullCredential) *image.Auth {
	if c == nil {
		return nil
	}
	return &image.Auth{Username: c.GetUsername(), Password: c.GetPassword(), IdentityToken: c.GetIdentityToken(), ServerAddress: c.GetServer()}
}

func pullProgress(p *image.PullProgress) *adminv1.PullProgress {
	out := &adminv1.PullProgress{Source: p.Source, Bytes: p.Bytes, Total: p.Total}
	for _, l := range p.Layers {
		out.Layers = append(out.Layers, &adminv1.PullLayer{Digest: l.Digest.String(), Bytes: l.Bytes, Total: l.Total, State: l.State})
	}
	return out
}

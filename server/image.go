package server

import (
	"context"
	"iter"
	"slices"

	"github.com/containerd/errdefs"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/image"
)

// imageRequest is any request about one image.
type imageRequest interface{ GetImage() *cri.ImageSpec }

func (s *Server) imageRef(req imageRequest) (string, error) {
	ref := req.GetImage().GetImage()
	if ref == "" {
		return "", missing("image.image")
	}
	return ref, s.checkHandler("image", req.GetImage())
}

// PullImage fetches an image and returns its id.
func (s *Server) PullImage(ctx context.Context, req *cri.PullImageRequest) (*cri.PullImageResponse, error) {
	ref, err := s.imageRef(req)
	if err != nil {
		return nil, err
	}
	img, err := s.cfg.Images.Pull(ctx, image.PullRequest{
		Ref: ref, Auth: auth(req.GetAuth()), Handler: req.GetImage().GetRuntimeHandler(),
		Namespace: req.GetSandboxConfig().GetMetadata().GetNamespace(),
	})
	if err != nil {
		return nil, err
	}
	return &cri.PullImageResponse{ImageRef: img.ID.String()}, nil
}

func auth(a *cri.AuthConfig) *image.Auth {
	if a == nil {
		return nil
	}
	return &image.Auth{
		Username: a.GetUsername(), Password: a.GetPassword(), Encoded: a.GetAuth(),
		ServerAddress: a.GetServerAddress(), IdentityToken: a.GetIdentityToken(), RegistryToken: a.GetRegistryToken(),
	}
}

// ListImages lists all images, or the one that the filter names.
func (s *Server) ListImages(_ context.Context, req *cri.ListImagesRequest) (*cri.ListImagesResponse, error) {
	items, err := s.imageItems(req.GetFilter())
	if err != nil {
		return nil, err
	}
	return &cri.ListImagesResponse{Images: slices.Collect(items)}, nil
}

func (s *Server) imageItems(f *cri.ImageFilter) (iter.Seq[*cri.Image], error) {
	if err := s.checkHandler("filter.image", f.GetImage()); err != nil {
		return nil, err
	}
	list := s.cfg.Images.List
	if ref := f.GetImage().GetImage(); ref != "" {
		img, err := s.cfg.Images.Get(ref)
		if err != nil {
			return func(func(*cri.Image) bool) {}, ifFound(err)
		}
		list = func() []image.Image { return []image.Image{img} }
	}
	return func(yield func(*cri.Image) bool) {
		for _, img := range list() {
			if !yield(imageItem(img)) {
				return
			}
		}
	}, nil
}

// ImageStatus describes an image; an unknown one is an empty answer and no
// error, by the rule of the CRI.
func (s *Server) ImageStatus(_ context.Context, req *cri.ImageStatusRequest) (*cri.ImageStatusResponse, error) {
	ref, err := s.imageRef(req)
	if err != nil {
		return nil, err
	}
	img, err := s.cfg.Images.Get(ref)
	if errdefs.IsNotFound(err) {
		return &cri.ImageStatusResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	resp := &cri.ImageStatusResponse{Image: imageItem(img)}
	if req.GetVerbose() {
		resp.Info, err = imageInfo(img)
	}
	return resp, err
}

// RemoveImage removes an image with all its tags. It is idempotent.
func (s *Server) RemoveImage(ctx context.Context, req *cri.RemoveImageRequest) (*cri.RemoveImageResponse, error) {
	ref, err := s.imageRef(req)
	if err != nil {
		return nil, err
	}
	return &cri.RemoveImageResponse{}, ifFound(s.cfg.Images.Remove(ctx, ref))
}

// ImageFsInfo tells what images and writable layers take on disk.
func (s *Server) ImageFsInfo(ctx context.Context, _ *cri.ImageFsInfoRequest) (*cri.ImageFsInfoResponse, error) {
	images, containers, err := s.cfg.Images.FSUsage(ctx)
	if err != nil {
		return nil, err
	}
	return &cri.ImageFsInfoResponse{
		ImageFilesystems:     []*cri.FilesystemUsage{fsUsage(images)},
		ContainerFilesystems: []*cri.FilesystemUsage{fsUsage(containers)},
	}, nil
}

func fsUsage(u image.FSUsage) *cri.FilesystemUsage {
	return &cri.FilesystemUsage{
		Timestamp:  u.Time.UnixNano(),
		FsId:       &cri.FilesystemIdentifier{Mountpoint: u.Mountpoint},
		UsedBytes:  &cri.UInt64Value{Value: u.Bytes},
		InodesUsed: &cri.UInt64Value{Value: u.Inodes},
	}
}

func imageItem(img image.Image) *cri.Image {
	user := container.ParseImageUser(img.Config.Config.User)
	item := &cri.Image{
		Id:          img.ID.String(),
		RepoTags:    img.RepoTags,
		RepoDigests: img.RepoDigests,
		Size:        img.Size,
		Username:    user.Name,
		Spec:        &cri.ImageSpec{Image: img.ID.String(), Annotations: annotations(img)},
		Pinned:      img.Pinned,
	}
	if user.IsID {
		item.Uid = &cri.Int64Value{Value: user.ID}
	}
	return item
}

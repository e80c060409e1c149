package server

import (
	"context"
	"iter"
	"slices"

	"github.com/containerd/errdefs"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/image"
)

// imageRequest is a request about one image.
type imageRequest interface{ GetImage() *cri.ImageSpec }

// checkImageRequest checks the image of a request and returns its reference.
func (s *Server) checkImageRequest(req imageRequest) (string, error) {
	ref := req.GetImage().GetImage()
	if ref == "" {
		return "", missing("image.image")
	}
	return ref, s.checkRuntimeHandler("image", req.GetImage())
}

// PullImage pulls an image and returns the image id, which is the same in all
// messages of the CRI.
//
// Errors: InvalidArgument for an empty or malformed reference or for an unknown
// runtime handler, NotFound if the registry does not have the image, or not for this
// platform, Unauthenticated or PermissionDenied if the registry or registries.conf
// refuses access, FailedPrecondition for a broken configuration on the node,
// ResourceExhausted for an image above a limit or for a full disk, Unimplemented for
// an unsupported kind of image, and DataLoss for content with a wrong digest. If the
// registry is not available or a signature is not accepted, the code is Unknown and
// the message begins with the word by which the kubelet recognizes these errors.
func (s *Server) PullImage(ctx context.Context, req *cri.PullImageRequest) (*cri.PullImageResponse, error) {
	ref, err := s.checkImageRequest(req)
	if err != nil {
		return nil, err
	}
	img, err := s.cfg.Images.Pull(ctx, image.PullRequest{
		Ref: ref, Auth: imageAuth(req.GetAuth()), Handler: req.GetImage().GetRuntimeHandler(),
		Namespace: req.GetSandboxConfig().GetMetadata().GetNamespace(), Pod: req.GetSandboxConfig().GetMetadata().GetName(),
	})
	if err != nil {
		return nil, err
	}
	return &cri.PullImageResponse{ImageRef: img.ID.String()}, nil
}

func imageAuth(a *cri.AuthConfig) *image.Auth {
	if a == nil {
		return nil
	}
	return &image.Auth{
		Username: a.GetUsername(), Password: a.GetPassword(), Encoded: a.GetAuth(),
		ServerAddress: a.GetServerAddress(), IdentityToken: a.GetIdentityToken(), RegistryToken: a.GetRegistryToken(),
	}
}

// ListImages lists all images, or the image that the filter names. An image that
// does not exist makes an empty list.
//
// Errors: InvalidArgument for a malformed reference or an unknown runtime handler in
// the filter, and ResourceExhausted if the list is too large for a message.
func (s *Server) ListImages(_ context.Context, req *cri.ListImagesRequest) (*cri.ListImagesResponse, error) {
	items, err := s.images(req.GetFilter())
	if err != nil {
		return nil, err
	}
	return &cri.ListImagesResponse{Images: slices.Collect(items)}, nil
}

// StreamImages returns the list of ListImages in messages of bounded size, each with
// at least one item, as the CRI demands.
//
// Errors: InvalidArgument for a malformed reference or an unknown runtime handler in
// the filter.
func (s *Server) StreamImages(req *cri.StreamImagesRequest, out cri.ImageService_StreamImagesServer) error {
	items, err := s.images(req.GetFilter())
	if err != nil {
		return err
	}
	return sendBatches(items, func(items []*cri.Image) error {
		return out.Send(&cri.StreamImagesResponse{Images: items})
	})
}

func (s *Server) images(f *cri.ImageFilter) (iter.Seq[*cri.Image], error) {
	if err := s.checkRuntimeHandler("filter.image", f.GetImage()); err != nil {
		return nil, err
	}
	list := s.cfg.Images.List
	if ref := f.GetImage().GetImage(); ref != "" {
		img, err := s.cfg.Images.Get(ref)
		if err != nil {
			return func(func(*cri.Image) bool) {}, ignoreNotFound(err)
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

// ImageStatus returns the status of one image. For an image that does not exist, it
// returns an answer without an image and no error, as the CRI demands.
//
// Errors: InvalidArgument for an empty, malformed or ambiguous reference or for an
// unknown runtime handler.
func (s *Server) ImageStatus(_ context.Context, req *cri.ImageStatusRequest) (*cri.ImageStatusResponse, error) {
	ref, err := s.checkImageRequest(req)
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

// RemoveImage removes an image with all its tags, as the CRI demands.
//
// Errors: InvalidArgument for an empty, malformed or ambiguous reference or for an
// unknown runtime handler, and FailedPrecondition if a container uses the image. The
// CRI demands that RemoveImage is idempotent: an image that does not exist is no
// error.
func (s *Server) RemoveImage(ctx context.Context, req *cri.RemoveImageRequest) (*cri.RemoveImageResponse, error) {
	ref, err := s.checkImageRequest(req)
	if err != nil {
		return nil, err
	}
	return &cri.RemoveImageResponse{}, ignoreNotFound(s.cfg.Images.Remove(ctx, ref))
}

// ImageFsInfo returns the disk usage of the images, and the disk usage of the writable
// layers of all containers. The request has no fields.
func (s *Server) ImageFsInfo(ctx context.Context, _ *cri.ImageFsInfoRequest) (*cri.ImageFsInfoResponse, error) {
	images, containers, err := s.cfg.Images.FSUsage(ctx)
	if err != nil {
		return nil, err
	}
	return &cri.ImageFsInfoResponse{
		ImageFilesystems:     []*cri.FilesystemUsage{filesystemUsage(images)},
		ContainerFilesystems: []*cri.FilesystemUsage{filesystemUsage(containers)},
	}, nil
}

func filesystemUsage(u image.FSUsage) *cri.FilesystemUsage {
	return &cri.FilesystemUsage{
		Timestamp:  u.Time.UnixNano(),
		FsId:       &cri.FilesystemIdentifier{Mountpoint: u.Mountpoint},
		UsedBytes:  &cri.UInt64Value{Value: u.Bytes},
		InodesUsed: &cri.UInt64Value{Value: u.Inodes},
	}
}

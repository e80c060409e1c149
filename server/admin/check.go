package admin

import (
	"context"

	adminv1 "github.com/criserver/criserver/admin/v1"
)

// ImageChecker verifies the image store.
type ImageChecker interface {
	// CheckImages changes nothing. It returns only the error of the context.
	CheckImages(ctx context.Context) (*adminv1.CheckImagesResponse, error)
}

// CheckImages verifies the image store.
func (s *Server) CheckImages(ctx context.Context, _ *adminv1.CheckImagesRequest) (*adminv1.CheckImagesResponse, error) {
	return s.cfg.ImageChecker.CheckImages(ctx)
}

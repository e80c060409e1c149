package daemon

import (
	"context"
	"errors"
	"fmt"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/image"
)

// ImageCheck is the result of CheckImages.
type ImageCheck struct {
	Images   int // number of images in the store
	Problems []ImageProblem
}

// ImageProblem is a broken image or layer.
type ImageProblem struct {
	image.Problem
	Tags []string // tags of the image
}

// CheckImages verifies the image store. If repair is set, CheckImages deletes broken images
// and layers that no container uses. It fails if a daemon runs on the same directories;
// containers may run.
func CheckImages(ctx context.Context, settings config.Config, repair bool) (check ImageCheck, err error) {
	locks, err := lockDirs(settings.Root, settings.RunDir)
	if err != nil {
		return ImageCheck{}, err
	}
	defer func() { err = errors.Join(err, locks.release()) }()
	images, err := image.New(imageConfig(settings))
	if err != nil {
		return ImageCheck{}, err
	}
	if err := images.Restore(ctx); err != nil {
		return ImageCheck{}, err
	}
	if check, err = checkStore(ctx, images, repair); err == nil && repair {
		err = images.EmptyTrash(ctx)
	}
	return check, err
}

// checkStore verifies the images of a manager, and adds the tags to the problems.
func checkStore(ctx context.Context, images *image.Manager, repair bool) (ImageCheck, error) {
	tags := make(map[image.ID][]string)
	for _, img := range images.List() {
		tags[img.ID] = img.RepoTags
	}
	problems, err := images.Check(ctx, repair)
	if err != nil {
		return ImageCheck{}, err
	}
	check := ImageCheck{Images: len(tags)}
	for _, p := range problems {
		check.Problems = append(check.Problems, ImageProblem{p, tags[p.Image]})
	}
	return check, nil
}

// CheckImages verifies the image store for a client of the administration API, while the daemon
// uses the store. It repairs nothing.
func (p *parts) CheckImages(ctx context.Context) (*adminv1.CheckImagesResponse, error) {
	check, err := checkStore(ctx, p.images, false)
	if err != nil {
		return nil, fmt.Errorf("check the image store: %w", err)
	}
	resp := &adminv1.CheckImagesResponse{Root: p.settings.Root, Images: int32(check.Images)}
	for _, found := range check.Problems {
		resp.Problems = append(resp.Problems, &adminv1.ImageProblem{
			Image: found.Image.String(), Tags: found.Tags, Layer: found.Layer.String(), Message: found.Err.Error(), User: found.User,
		})
	}
	return resp, nil
}

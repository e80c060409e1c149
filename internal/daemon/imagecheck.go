package daemon

import (
	"context"
	"errors"

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
	tags := make(map[image.ID][]string)
	for _, img := range images.List() {
		tags[img.ID] = img.RepoTags
	}
	problems, err := images.Check(ctx, repair)
	if err != nil {
		return ImageCheck{}, err
	}
	check.Images = len(tags)
	for _, p := range problems {
		check.Problems = append(check.Problems, ImageProblem{p, tags[p.Image]})
	}
	if repair {
		err = images.EmptyTrash(ctx)
	}
	return check, err
}

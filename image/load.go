package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/containerd/errdefs"
	"go.podman.io/image/v5/docker/reference"

	"github.com/criserver/criserver/image/archive"
	"github.com/criserver/criserver/image/pull"
	"github.com/criserver/criserver/internal/steps"
)

// LoadRequest is a request to load the images of an archive.
type LoadRequest struct {
	Archive io.Reader // can be compressed with gzip, zstd, xz or bzip2
	Size    int64     // of Archive in bytes; 0 if it is not known
	// Name replaces the names that the archive has for its only image. "": the image gets the names in the archive.
	Name string
	// Key identifies the load for LoadProgress. It must be unique, or "".
	Key string
}

// LoadedImage is an image of an archive.
type LoadedImage struct {
	Image   Image
	Label   string   // identifies the image in the archive: its names, or its digest
	Names   []string // that the image got from the archive
	Existed bool     // the store had the image already
	Err     error    // why the image was not loaded, or nil
}

// Load stores all images of an archive. Layers in the store are not unpacked again. The archive is stored temporarily
// below the root of the store. Load returns an error if no image was loaded; otherwise each image has its error. The
// errors are ErrInvalidArgument, ErrNotFound (another platform), ErrPermissionDenied (the signature policy),
// ErrDataLoss, ErrResourceExhausted and ErrNotImplemented.
func (m *Manager) Load(ctx context.Context, req LoadRequest) (_ []LoadedImage, err error) {
	ctx, step := steps.Begin(ctx, steps.ImageLoad, steps.Object{})
	defer step.EndWith(&err)
	if err := checkName(req.Name); err != nil {
		return nil, err
	}
	f, size, err := m.spool(ctx, req.Archive, req.Size)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return m.loadArchive(ctx, f, size, loadOptions{name: req.Name, key: req.Key})
}

// LoadProgress returns the progress of the running load with a key. ok is false if there is none.
func (m *Manager) LoadProgress(key string) (progress PullProgress, ok bool) {
	for _, p := range m.puller.Load().Running() {
		if p.Key == key {
			return p, true
		}
	}
	return progress, false
}

// loadOptions are the options of loadArchive.
type loadOptions struct{ name, key, path string }

// loadArchive loads the images of an uncompressed archive one after the other.
func (m *Manager) loadArchive(ctx context.Context, f *os.File, size int64, o loadOptions) ([]LoadedImage, error) {
	a, err := archive.Open(ctx, f, size, runtime.GOOS+"/"+runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	if o.name != "" && len(a.Images) > 1 {
		return nil, fmt.Errorf("name: archive has %d images, and a name can be given to one image only: %w", len(a.Images), errdefs.ErrInvalidArgument)
	}
	var all []LoadedImage
	var errs []error
	for _, img := range a.Images {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		loaded := m.loadImage(ctx, a, img, o)
		if loaded.Err != nil {
			loaded.Err = fmt.Errorf("load image %s: %w", loaded.Label, loaded.Err)
			errs = append(errs, loaded.Err)
		}
		all = append(all, loaded)
	}
	if len(errs) == len(all) {
		return nil, errors.Join(errs...)
	}
	return all, nil
}

// loadImage loads one image.
func (m *Manager) loadImage(ctx context.Context, a *archive.Archive, img *archive.Image, o loadOptions) LoadedImage {
	written := img.Names
	if o.name != "" {
		written = []string{o.name}
	}
	loaded := LoadedImage{Label: label(img, written)}
	names, err := parseNames(written)
	if err != nil {
		loaded.Err = err
		return loaded
	}
	lease := m.layers.Lease()
	defer lease.Close()
	res, err := m.puller.Load().Load(ctx, pull.LoadRequest{
		Archive: a, Image: img, Names: names, Label: loaded.Label, Path: o.path, Key: o.key,
	}, lease)
	if err == nil {
		_, loaded.Existed = m.index.Load().byID[res.ConfigDigest]
		loaded.Image, err = m.add(ctx, res)
	}
	if err != nil {
		// The next attempt needs no network, so the layers of a failed load are deleted.
		added := lease.Added()
		lease.Close()
		loaded.Err = errors.Join(classifyDiskFull(err), m.layers.Drop(context.WithoutCancel(ctx), added))
		return loaded
	}
	for _, name := range names {
		if _, ok := name.(reference.Tagged); ok {
			loaded.Names = append(loaded.Names, name.String())
		}
	}
	return loaded
}

// maxLabel is the maximum length of a label in bytes.
const maxLabel = 256

// label returns a text that identifies an image of an archive: its names, or its digest. The names are not trusted.
func label(img *archive.Image, names []string) string {
	text := strings.ToValidUTF8(strings.Join(names, " "), "?")
	switch {
	case text == "":
		return img.Digest.String()
	case len(text) > maxLabel:
		return strings.ToValidUTF8(text[:maxLabel], "") + "…"
	}
	return text
}

// checkName checks the name of a request. "" is valid.
func checkName(name string) error {
	if name == "" {
		return nil
	}
	names, err := parseNames([]string{name})
	if err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if _, ok := names[0].(reference.Digested); ok {
		return fmt.Errorf("name: %.256q has a digest, and must have a tag: %w", name, errdefs.ErrInvalidArgument)
	}
	return nil
}

// parseNames returns the full forms of names in an archive. As docker does, it completes a name without a registry with
// docker.io, and a name without a tag and a digest with "latest".
func parseNames(written []string) ([]reference.Named, error) {
	var names []reference.Named
	for _, w := range written {
		named, err := reference.ParseNormalizedNamed(w)
		if err != nil {
			return nil, fmt.Errorf("image name %.256q: %w: %w", w, err, errdefs.ErrInvalidArgument)
		}
		names = append(names, pull.Complete(named))
	}
	return names, nil
}

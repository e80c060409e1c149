package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"go.podman.io/image/v5/docker/reference"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/image/layer"
	"github.com/criserver/criserver/image/pull"
	"github.com/criserver/criserver/internal/atomicfile"
	"github.com/criserver/criserver/internal/steps"
)

// add writes a pulled image to disk and publishes it.
func (m *Manager) add(ctx context.Context, res *pull.Result) (_ Image, err error) {
	ctx, step := steps.Start(ctx, steps.ImageStore)
	defer step.EndWith(&err)
	unlock, err := m.lockChanges(ctx)
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	old, exists := m.index.Load().byID[res.ConfigDigest]
	if !exists {
		img := newImage(res)
		img.addNames(res)
		if err := m.writeImage(img, res); err != nil {
			return Image{}, err
		}
		return m.publish(img), nil
	}
	// An image with the same id has the same config and the same layers. Only names can be new.
	img := &stored{Image: old.Image, cover: old.cover}
	img.addNames(res)
	if slices.Equal(img.RepoTags, old.RepoTags) && slices.Equal(img.RepoDigests, old.RepoDigests) {
		return old.Image, nil
	}
	img.PulledAt = time.Now()
	if err := m.updateRecord(img); err != nil {
		return Image{}, err
	}
	return m.publish(img), nil
}

// newImage returns the image of a pull without names.
func newImage(res *pull.Result) *stored {
	img := &stored{Image: Image{
		ID: res.ConfigDigest, Manifest: res.ManifestDigest, PulledAt: time.Now(),
		Size:   uint64(len(res.Manifest) + len(res.RawConfig)),
		Config: res.Config, RawConfig: res.RawConfig,
	}}
	img.readManifest(res.Manifest)
	var diffIDs []digest.Digest
	for i, l := range res.Layers {
		diffIDs = append(diffIDs, l.DiffID)
		img.Size += l.Bytes
		img.Layers = append(img.Layers, Layer{
			DiffID: l.DiffID, Digest: res.Blobs[i], Size: l.Bytes,
			ChainID: identity.ChainID(diffIDs),
		})
	}
	return img
}

// addNames adds the names of a pulled or loaded image. An image that was pulled by an index has two digest
// references: the digest of the index, and the digest of the manifest for this platform. A pod can
// use either.
func (s *stored) addNames(res *pull.Result) {
	for _, name := range res.Names {
		if _, ok := name.(reference.Tagged); ok {
			s.RepoTags = addName(s.RepoTags, name.String())
		}
		if res.Generated {
			continue // no registry has the digest
		}
		for _, d := range []digest.Digest{res.TopDigest, res.ManifestDigest} {
			s.RepoDigests = addName(s.RepoDigests, name.Name()+"@"+d.String())
		}
	}
}

// addName returns names with name added. names is sorted, and addName does not change it.
func addName(names []string, name string) []string {
	i, found := slices.BinarySearch(names, name)
	if found {
		return names
	}
	return slices.Insert(slices.Clone(names), i, name)
}

// publish adds an image to the index. It removes the tags of the image from other images, also in
// their records.
func (m *Manager) publish(img *stored) Image {
	old := m.index.Load()
	retagged := make(map[ID]*stored)
	for _, tag := range img.RepoTags {
		if owner, ok := old.byName[tag]; ok && owner.ID != img.ID {
			other := retagged[owner.ID]
			if other == nil {
				other = &stored{Image: owner.Image, cover: owner.cover}
			}
			other.RepoTags = slices.DeleteFunc(slices.Clone(other.RepoTags), func(t string) bool { return t == tag })
			retagged[owner.ID] = other
		}
	}
	changed := append(slices.Collect(maps.Values(retagged)), img)
	m.mu.Lock()
	next := newIndex(old.with(changed), old.broken, m.pinned)
	m.index.Store(next)
	m.mu.Unlock()
	for _, other := range retagged {
		// If the record cannot be written, it keeps the tag. removeDuplicateTags removes the tag
		// when the records are loaded.
		_ = m.updateRecord(other)
	}
	return next.byID[img.ID].Image
}

// writeImage writes a new image to disk. It writes all files to the staging directory, syncs them
// and the layers of the image at once, and moves the directory to its final path with one rename.
func (m *Manager) writeImage(img *stored, res *pull.Result) error {
	stage, err := os.MkdirTemp(m.dir(stageDir), "image-")
	if err != nil {
		return err
	}
	err = m.writeStage(stage, img, res)
	if err == nil {
		err = m.moveFromStage(stage, img)
	}
	// The staging directory does not exist any more if the image was moved.
	if err := errors.Join(err, m.bin.Put(stage)); err != nil {
		return err
	}
	return atomicfile.SyncDir(m.dir(imagesDir))
}

// moveFromStage moves a staged image to its final directory. If that directory exists, it belongs
// to a broken image. If a container may use the broken image, moveFromStage keeps the directory and
// replaces only the records, because a mounted root file system may include the cover in the
// directory.
func (m *Manager) moveFromStage(stage string, img *stored) error {
	dir := m.imageDir(img.ID)
	if m.imageUser(img.ID) == "" {
		return errors.Join(m.bin.Put(dir), os.Rename(stage, dir))
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := placeCover(filepath.Join(dir, coverDir), filepath.Join(stage, coverDir), img.cover); err != nil {
		return fmt.Errorf("replace records of image %s: %w", img.ID, err)
	}
	for _, name := range []string{manifestFile, configFile, recordFile} {
		if err := os.Rename(filepath.Join(stage, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return atomicfile.SyncDir(dir)
}

// placeCover moves the staged cover of an image to the directory final, if the image needs a cover.
// A cover that exists is kept. It must equal the staged cover.
func placeCover(final, staged string, needed bool) error {
	if !needed {
		return nil
	}
	err := os.Rename(staged, final)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	same, err := layer.SameTree(context.Background(), final, staged)
	if err == nil && !same {
		err = fmt.Errorf("cover %s is damaged and mounted by a container: %w", final, errdefs.ErrFailedPrecondition)
	}
	return err
}

// maxLower is the maximum number of lower layers of an overlay mount.
const maxLower = 500

// writeStage writes the files of an image to the staging directory and syncs the file system.
func (m *Manager) writeStage(stage string, img *stored, res *pull.Result) error {
	var err error
	stack := layer.NewStack(res.Layers)
	if img.cover, err = stack.WriteCover(filepath.Join(stage, coverDir)); err != nil {
		return err
	}
	if n := len(stack.Dirs()); img.cover && n >= maxLower {
		return fmt.Errorf("image has %d layers and needs a cover, at most %d layers are allowed: %w", n, maxLower, errdefs.ErrInvalidArgument)
	}
	if err := img.record().write(stage, res.Manifest, res.RawConfig); err != nil {
		return err
	}
	if err := syncFS(stage); err != nil {
		// The kernel reports a write error only once. Layers that no image has yet may be damaged,
		// and the next sync would not report that.
		return errors.Join(err, m.layers.DropOlder(context.Background(), time.Now()))
	}
	return nil
}

// syncFS syncs the file system of dir.
func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = unix.Syncfs(int(f.Fd()))
	return errors.Join(os.NewSyscallError("syncfs", err), f.Close())
}

package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/atomicfile"
	"github.com/opencontainers/go-digest"
)

// Restore loads the records and moves the leftovers of an earlier process to the trash. It is called
// once, before anything else. A record that cannot be read is logged, and the other records are loaded.
func (m *Manager) Restore(ctx context.Context) error {
	for _, name := range []string{".", imagesDir, layersDir, rootfsDir, stageDir, trashDir} {
		// Only root may access the directories, because images have set-user-id programs.
		if err := os.MkdirAll(m.dir(name), 0o700); err != nil {
			return fmt.Errorf("restore image store: %w", err)
		}
	}
	if err := os.MkdirAll(m.cfg.RunRoot, 0o711); err != nil {
		return fmt.Errorf("restore image store: %w", err)
	}
	report := m.logWarning(ctx)
	// The mounts of containers are restored first, so that images and layers in use are not deleted as
	// leftovers.
	for _, step := range []func() error{
		func() error { return atomicfile.RemoveTemporary(m.dir(".")) },
		func() error { return m.bin.PutAll(m.dir(stageDir)) },
		func() error { return m.rootfs.Restore(report) },
		func() error { return m.volumes.Restore(report) },
		func() error { m.restoreArchives(report); return nil },
		func() error { return m.restoreImages(report) },
		func() error { return m.layers.Restore(report) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("restore image store: %w", err)
		}
	}
	m.checkLayers(report)
	return nil
}

// brokenImage is an image on disk that cannot be used. The image and its layers are kept, because a
// container may have the layers mounted, and because a newer version of the daemon may be able to read
// the records.
type brokenImage struct {
	err    error
	layers []digest.Digest // the layers that are known
}

// idAlgorithms are the algorithms of image ids.
var idAlgorithms = []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512}

// parseIDHex returns the image id for the name of an image directory, which is the id without its
// algorithm.
func parseIDHex(hex string) (ID, bool) {
	for _, algorithm := range idAlgorithms {
		if id := digest.NewDigestFromEncoded(algorithm, hex); id.Validate() == nil {
			return id, true
		}
	}
	return "", false
}

// restoreImages loads the records. An image whose record cannot be read becomes a broken image. A
// directory without record and config is the leftover of a crash.
func (m *Manager) restoreImages(report func(error)) error {
	entries, err := os.ReadDir(m.dir(imagesDir))
	if err != nil {
		return err
	}
	var all []*stored
	broken := make(map[ID]*brokenImage)
	for _, e := range entries {
		id, ok := parseIDHex(e.Name())
		if !ok {
			report(fmt.Errorf("restore image %q: name is not an image id, directory is kept: %w", e.Name(), errdefs.ErrInvalidArgument))
			continue
		}
		dir := m.imageDir(id)
		img, err := loadImage(dir)
		switch {
		case err == nil:
			all = append(all, img)
			continue
		case isEmpty(dir) && m.imageUser(id) == "":
			err = errors.Join(err, m.bin.Put(dir))
		default:
			broken[id] = &brokenImage{err, brokenLayers(dir, id)}
			err = fmt.Errorf("files are kept, and the image must be pulled again: %w", err)
		}
		report(fmt.Errorf("restore image %s: %w", id, err))
	}
	m.replaceIndex(removeDuplicateTags(all), broken)
	return nil
}

// isEmpty reports whether the directory of an image has neither a record nor a config.
func isEmpty(dir string) bool {
	for _, name := range []string{recordFile, configFile} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	return true
}

// brokenLayers returns the diff IDs of an image that cannot be loaded, from its record or its config.
// The config is trusted if its digest is the image id. Records of every version are read, because a
// field never changes its meaning.
func brokenLayers(dir string, id ID) []digest.Digest {
	var config struct {
		RootFS struct {
			DiffIDs []digest.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	b, err := os.ReadFile(filepath.Join(dir, configFile))
	if err == nil && id.Algorithm().FromBytes(b) == id && json.Unmarshal(b, &config) == nil {
		return config.RootFS.DiffIDs
	}
	var r record
	b, err = os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil || json.Unmarshal(b, &r) != nil || r.ID != id {
		return nil
	}
	var layers []digest.Digest
	for _, l := range r.Layers {
		layers = append(layers, l.DiffID)
	}
	return layers
}

// checkLayers finds images with a layer that cannot be used. An image with a missing layer is deleted
// if no container uses the image. All other images with such a layer become broken images.
func (m *Manager) checkLayers(report func(error)) {
	old := m.index.Load()
	broken := maps.Clone(old.broken)
	var usable []*stored
	for _, img := range old.all {
		_, err := m.lowerDirs(img)
		switch {
		case err == nil:
			usable = append(usable, img)
			continue
		case errdefs.IsNotFound(err) && m.imageUser(img.ID) == "":
			err = errors.Join(err, m.bin.Put(m.imageDir(img.ID)))
		default:
			broken[img.ID] = &brokenImage{err, img.diffIDs()}
			err = fmt.Errorf("files are kept, and the image must be pulled again: %w", err)
		}
		report(fmt.Errorf("restore image %s (%s): %w", img.ID, strings.Join(img.RepoTags, " "), err))
	}
	m.replaceIndex(usable, broken)
}

// replaceIndex publishes an index of images and broken images.
func (m *Manager) replaceIndex(all []*stored, broken map[ID]*brokenImage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index.Store(newIndex(all, broken, m.pinned))
}

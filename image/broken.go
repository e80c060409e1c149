package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// broken is an image on disk that cannot be used. The image and its layers are kept,
// because a container may have the layers mounted, and because a newer version of the
// daemon may be able to read the records.
type broken struct {
	err    error
	layers []digest.Digest // those that are known
}

// idAlgorithms are the algorithms of image ids.
var idAlgorithms = []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512}

// idOf returns the image id of a directory name, which is an id without its algorithm.
func idOf(hex string) (ID, bool) {
	for _, algorithm := range idAlgorithms {
		if id := digest.NewDigestFromEncoded(algorithm, hex); id.Validate() == nil {
			return id, true
		}
	}
	return "", false
}

// restoreImages loads the records. An image whose record cannot be read becomes a broken
// image. A directory without record and config is the leftover of a crash.
func (m *Manager) restoreImages(report func(error)) error {
	entries, err := os.ReadDir(m.dir(imagesDir))
	if err != nil {
		return err
	}
	var all []*stored
	unusable := make(map[ID]*broken)
	for _, e := range entries {
		id, ok := idOf(e.Name())
		if !ok {
			report(fmt.Errorf("restore image %q: no image has this name, it stays as it is: %w", e.Name(), errdefs.ErrInvalidArgument))
			continue
		}
		dir := m.imageDir(id)
		img, err := loadImage(dir)
		switch {
		case err == nil:
			all = append(all, img)
			continue
		case isEmpty(dir) && m.userOf(id) == "":
			err = errors.Join(err, m.bin.Put(dir))
		default:
			unusable[id] = &broken{err, layersOf(dir, id)}
			err = fmt.Errorf("its files are kept, and it has to be pulled again: %w", err)
		}
		report(fmt.Errorf("restore image %s: %w", id, err))
	}
	m.now.Store(newIndex(dedupe(all), unusable, m.cfg.PinnedImages))
	return nil
}

// isEmpty says whether an image's directory has neither a record nor a config.
func isEmpty(dir string) bool {
	for _, name := range []string{recordFile, configFile} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	return true
}

// layersOf returns the diff IDs of an image that cannot be loaded, from its record or its
// config. The config is trusted if its digest is the image id. Records of every version are
// read, because a field never changes its meaning.
func layersOf(dir string, id ID) []digest.Digest {
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

// checkLayers finds images with a layer that cannot be used. An image with a missing layer
// is deleted if no container uses the image. All other images with such a layer become
// broken images.
func (m *Manager) checkLayers(report func(error)) {
	old := m.now.Load()
	unusable := make(map[ID]*broken)
	for id, b := range old.broken {
		unusable[id] = b
	}
	var whole []*stored
	for _, img := range old.all {
		_, err := m.lower(img)
		switch {
		case err == nil:
			whole = append(whole, img)
			continue
		case errdefs.IsNotFound(err) && m.userOf(img.ID) == "":
			err = errors.Join(err, m.bin.Put(m.imageDir(img.ID)))
		default:
			unusable[img.ID] = &broken{err, img.diffIDs()}
			err = fmt.Errorf("its files are kept, and it has to be pulled again: %w", err)
		}
		report(fmt.Errorf("restore image %s (%s): %w", img.ID, strings.Join(img.RepoTags, " "), err))
	}
	m.now.Store(newIndex(whole, unusable, m.cfg.PinnedImages))
}

// removeBroken deletes a broken image, unless a container uses it, and the
// layers that only it had. It is called with the lock of commit held.
func (m *Manager) removeBroken(id ID) (layers []digest.Digest, err error) {
	before := m.now.Load()
	b, ok := before.broken[id]
	if !ok {
		return nil, nil
	}
	if err := m.forgetBroken(id); err != nil {
		return nil, err
	}
	if err := m.bin.Put(m.imageDir(id)); err != nil {
		m.restore(before)
		return nil, fmt.Errorf("remove image %s: %w", id, err)
	}
	return b.layers, nil
}

// forgetBroken removes a broken image from the index, unless a container uses the image.
func (m *Manager) forgetBroken(id ID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if user := m.user(id); user != "" {
		return fmt.Errorf("remove image %s: %s: %w", id, user, errdefs.ErrFailedPrecondition)
	}
	old := m.now.Load()
	m.now.Store(newIndex(old.all, without(old.broken, id), m.cfg.PinnedImages))
	return nil
}

func without(all map[ID]*broken, id ID) map[ID]*broken {
	left := make(map[ID]*broken, len(all))
	for other, b := range all {
		if other != id {
			left[other] = b
		}
	}
	return left
}

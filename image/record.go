package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/manifest"

	"github.com/criserver/criserver/image/layer"
	"github.com/criserver/criserver/internal/atomicfile"
)

// recordVersion is increased if older daemons cannot read the records of newer ones.
const recordVersion = 1

// record is the record of an image on disk. Manifest and config are in files of their own.
type record struct {
	Version  int           `json:"version"`
	ID       ID            `json:"id"`
	Manifest digest.Digest `json:"manifest"`
	Tags     []string      `json:"tags"`
	Digests  []string      `json:"digests"`
	PulledAt time.Time     `json:"pulledAt"`
	Layers   []Layer       `json:"layers"` // lowest first
	Size     uint64        `json:"size"`
	// Cover reports whether the image has a cover, see layer.Stack.
	Cover bool `json:"cover,omitempty"`
}

// Names in the directory of an image.
const (
	recordFile   = "image.json"
	manifestFile = "manifest.json"
	configFile   = "config.json"
	coverDir     = "cover"
)

// stored is an image in memory. It is immutable.
type stored struct {
	Image
	cover bool
}

func (s *stored) diffIDs() []digest.Digest {
	ids := make([]digest.Digest, 0, len(s.Layers))
	for _, l := range s.Layers {
		ids = append(ids, l.DiffID)
	}
	return ids
}

func (m *Manager) imageDir(id ID) string { return filepath.Join(m.dir(imagesDir), id.Encoded()) }

// lowerDirs returns the lower directories of an image for overlay, topmost first.
func (m *Manager) lowerDirs(img *stored) ([]string, error) {
	var layers []*layer.Layer
	for _, ref := range img.Layers {
		l, ok := m.layers.Get(ref.DiffID)
		if !ok {
			return nil, fmt.Errorf("layer %s of image %s: %w", ref.DiffID, img.ID, m.layerError(ref.DiffID))
		}
		layers = append(layers, l)
	}
	dirs := layer.NewStack(layers).Dirs()
	if img.cover {
		dirs = append([]string{filepath.Join(m.imageDir(img.ID), coverDir)}, dirs...)
	}
	return dirs, nil
}

// layerError returns the reason why the store does not have a layer, or has a layer that cannot be used.
func (m *Manager) layerError(id digest.Digest) error {
	if err := m.layers.Broken(id); err != nil {
		// %s removes the class of err. If a file is missing, the class is ErrNotFound.
		return fmt.Errorf("%s: %w", err.Error(), errdefs.ErrDataLoss)
	}
	return errdefs.ErrNotFound
}

// write writes record, manifest and config to dir.
func (r *record) write(dir string, manifest, config []byte) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, manifestFile), manifest, 0o600),
		os.WriteFile(filepath.Join(dir, configFile), config, 0o600),
		os.WriteFile(filepath.Join(dir, recordFile), b, 0o600),
	)
}

// updateRecord replaces the record of an image.
func (m *Manager) updateRecord(img *stored) error {
	b, err := json.Marshal(img.record())
	if err != nil {
		return err
	}
	return atomicfile.WriteSync(filepath.Join(m.imageDir(img.ID), recordFile), b, 0o600)
}

func (s *stored) record() *record {
	return &record{
		Version: recordVersion, ID: s.ID, Manifest: s.Manifest, Tags: s.RepoTags, Digests: s.RepoDigests,
		PulledAt: s.PulledAt, Layers: s.Layers, Size: s.Size, Cover: s.cover,
	}
}

// loadImage reads an image from its directory.
func loadImage(dir string) (*stored, error) {
	var r record
	b, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("parse %s: %w: %w", recordFile, err, errdefs.ErrDataLoss)
	}
	switch {
	case r.Version != recordVersion:
		return nil, fmt.Errorf("%s has version %d, and this daemon reads version %d: %w", recordFile, r.Version, recordVersion, errdefs.ErrNotImplemented)
	case r.ID.Validate() != nil, r.ID.Encoded() != filepath.Base(dir):
		return nil, fmt.Errorf("%s has image id %q: %w", recordFile, r.ID, errdefs.ErrDataLoss)
	}
	config, err := os.ReadFile(filepath.Join(dir, configFile))
	if err != nil {
		return nil, err
	}
	if r.ID.Algorithm().FromBytes(config) != r.ID {
		return nil, fmt.Errorf("digest of config is not the image id: %w", errdefs.ErrDataLoss)
	}
	s := &stored{cover: r.Cover, Image: Image{
		ID: r.ID, RepoTags: r.Tags, RepoDigests: r.Digests, Size: r.Size, PulledAt: r.PulledAt,
		Manifest: r.Manifest, Layers: r.Layers, RawConfig: config,
	}}
	// An image without its manifest can still be used. Check reports the missing manifest.
	if b, err := os.ReadFile(filepath.Join(dir, manifestFile)); err == nil {
		s.readManifest(b)
	}
	return s, json.Unmarshal(config, &s.Config)
}

// readManifest sets the fields that are read from the manifest.
func (s *stored) readManifest(b []byte) {
	var m struct {
		Annotations map[string]string `json:"annotations"`
	}
	s.MediaType = manifest.GuessMIMEType(b)
	// The manifest was valid when it was pulled. A damaged manifest has no annotations.
	if err := json.Unmarshal(b, &m); err == nil {
		s.Annotations = m.Annotations
	}
}

// removeDuplicateTags removes a tag from all images except the one that was pulled last. Several
// images have the same tag if a crash came between the writes of their records in publish.
func removeDuplicateTags(all []*stored) []*stored {
	slices.SortFunc(all, func(a, b *stored) int { return b.PulledAt.Compare(a.PulledAt) })
	seen := make(map[string]bool)
	for _, img := range all {
		img.RepoTags = slices.DeleteFunc(img.RepoTags, func(tag string) bool {
			defer func() { seen[tag] = true }()
			return seen[tag]
		})
	}
	return all
}

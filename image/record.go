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

// recordVersion is raised when older daemons could not read a record.
const recordVersion = 1

// record is what is kept of an image beside its manifest and config.
type record struct {
	Version  int           `json:"version"`
	ID       ID            `json:"id"`
	Manifest digest.Digest `json:"manifest"`
	Tags     []string      `json:"tags"`
	Digests  []string      `json:"digests"`
	PulledAt time.Time     `json:"pulledAt"`
	Layers   []Layer       `json:"layers"` // lowest first
	Size     uint64        `json:"size"`
	// Cover says that the image has a directory of corrected metadata to go on
	// top of its layers; see layer.Stack.
	Cover bool `json:"cover,omitempty"`
}

// Names in an image's directory.
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

// lower returns the directories of an image's root file system, topmost first.
func (m *Manager) lower(img *stored) ([]string, error) {
	var layers []*layer.Layer
	for _, l := range img.Layers {
		known, ok := m.layers.Get(l.DiffID)
		if !ok {
			err := m.layers.Broken(l.DiffID)
			if err != nil {
				// Not the class of err, which can be that of a missing file.
				err = fmt.Errorf("%s: %w", err.Error(), errdefs.ErrDataLoss)
			} else {
				err = errdefs.ErrNotFound
			}
			return nil, fmt.Errorf("layer %s of image %s: %w", l.DiffID, img.ID, err)
		}
		layers = append(layers, known)
	}
	dirs := layer.NewStack(layers).Dirs()
	if img.cover {
		dirs = append([]string{filepath.Join(m.imageDir(img.ID), coverDir)}, dirs...)
	}
	return dirs, nil
}

// write puts record, manifest and config into dir.
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

// rewrite replaces the record of an image that is in its place.
func (m *Manager) rewrite(img *stored) error {
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
		return nil, fmt.Errorf("%s is of version %d, and this daemon reads version %d: %w", recordFile, r.Version, recordVersion, errdefs.ErrNotImplemented)
	case r.ID.Validate() != nil, r.ID.Encoded() != filepath.Base(dir):
		return nil, fmt.Errorf("%s is of image %q: %w", recordFile, r.ID, errdefs.ErrDataLoss)
	}
	config, err := os.ReadFile(filepath.Join(dir, configFile))
	if err != nil {
		return nil, err
	}
	if r.ID.Algorithm().FromBytes(config) != r.ID {
		return nil, fmt.Errorf("config does not have the image's digest: %w", errdefs.ErrDataLoss)
	}
	s := &stored{cover: r.Cover, Image: Image{
		ID: r.ID, RepoTags: r.Tags, RepoDigests: r.Digests, Size: r.Size, PulledAt: r.PulledAt,
		Manifest: r.Manifest, Layers: r.Layers, RawConfig: config,
	}}
	// Without its manifest an image can still be run. Check finds it missing.
	if b, err := os.ReadFile(filepath.Join(dir, manifestFile)); err == nil {
		s.readManifest(b)
	}
	return s, json.Unmarshal(config, &s.Config)
}

// readManifest takes from a manifest what is shown of it.
func (s *stored) readManifest(b []byte) {
	var m struct {
		Annotations map[string]string `json:"annotations"`
	}
	s.MediaType = manifest.GuessMIMEType(b)
	// It was parsed when it was pulled; one that is damaged has no annotations.
	if err := json.Unmarshal(b, &m); err == nil {
		s.Annotations = m.Annotations
	}
}

// dedupe takes a tag from all but the image that was pulled last: a crash can
// come between writing the new owner's record and the old one's.
func dedupe(all []*stored) []*stored {
	slices.SortFunc(all, func(a, b *stored) int { return b.PulledAt.Compare(a.PulledAt) })
	taken := make(map[string]bool)
	for _, img := range all {
		img.RepoTags = slices.DeleteFunc(img.RepoTags, func(tag string) bool {
			defer func() { taken[tag] = true }()
			return taken[tag]
		})
	}
	return all
}

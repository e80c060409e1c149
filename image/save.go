package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/criserver/criserver/image/archive"
	"github.com/criserver/criserver/image/layer"
	"github.com/criserver/criserver/image/pull"
	"github.com/criserver/criserver/internal/steps"
)

// ArchiveFormat is the format of an archive of images.
type ArchiveFormat = archive.Format

// The formats of archives.
const (
	OCIArchive    = archive.OCI
	DockerArchive = archive.Docker
)

// SaveRequest is a request to save images in an archive.
type SaveRequest struct {
	// Refs are names or ids of images. A name with a tag selects this name for the archive. An id or a digest selects
	// all tags of the image.
	Refs   []string
	Format ArchiveFormat
	// Progress is called several times a second by the goroutine of Save. nil: no reports.
	Progress func(PullProgress)
}

// SavedImage is an image in an archive.
type SavedImage struct {
	ID ID
	// SavedID is the id that the image has after it was loaded from the archive. It differs from ID if a tar of a layer
	// could not be restored exactly.
	SavedID ID
	Names   []string
}

// States of a layer that is saved.
const (
	saveWaiting = "waiting"
	saveReading = "reading" // the digest of the tar is calculated
	saveWriting = "writing"
	saveDone    = "done"
)

// saveInterval is the time between two calls of SaveRequest.Progress.
const saveInterval = 200 * time.Millisecond

// saver saves images. The digest and the size of a layer come before its content in an archive, so each layer is read
// twice: first for its digest, then for its content.
type saver struct {
	lease    *layer.Lease
	layers   map[digest.Digest]*savedLayer // by diff ID
	order    []*savedLayer
	progress func(PullProgress)
	reported time.Time
}

// savedLayer is a layer that is saved.
type savedLayer struct {
	layer *layer.Layer
	// digest and size describe the tar that WriteTar writes. digest is "" until measure has calculated the digest.
	digest       digest.Digest
	size         int64
	bytes, total int64 // of the current state
	state        string
}

// Save writes an archive of images to w. A lease keeps the layers of an image that is removed during the call. Save
// returns ErrInvalidArgument for an invalid request, ErrNotFound if an image does not exist, and ErrDataLoss if a layer
// is damaged. After an error, the archive is not complete.
func (m *Manager) Save(ctx context.Context, w io.Writer, req SaveRequest) (_ []SavedImage, err error) {
	ctx, step := steps.Begin(ctx, steps.ImageSave, steps.Object{})
	defer step.EndWith(&err)
	if len(req.Refs) == 0 {
		return nil, fmt.Errorf("names: must not be empty: %w", errdefs.ErrInvalidArgument)
	}
	s := &saver{lease: m.layers.Lease(), layers: make(map[digest.Digest]*savedLayer), progress: req.Progress}
	defer s.lease.Close()
	images, saved, err := m.selectSaved(req.Refs)
	if err != nil {
		return nil, err
	}
	for _, img := range images {
		if err := m.holdLayers(s, img); err != nil {
			return nil, fmt.Errorf("save image %s: %w", img.ID, err)
		}
	}
	var sources []archive.Source
	for i, img := range images {
		source, err := s.source(ctx, img)
		if err != nil {
			return nil, fmt.Errorf("save image %s: %w", img.ID, err)
		}
		source.Names = saved[i].Names
		saved[i].SavedID = img.ID
		if !bytes.Equal(source.Config, img.RawConfig) {
			saved[i].SavedID = digest.FromBytes(source.Config)
		}
		sources = append(sources, source)
	}
	if err := archive.Write(ctx, w, req.Format, sources); err != nil {
		return nil, fmt.Errorf("save images: %w", err)
	}
	return saved, nil
}

// selectSaved returns the images that a request names, each once, with their names in the archive.
func (m *Manager) selectSaved(refs []string) (images []*stored, saved []SavedImage, err error) {
	for _, ref := range refs {
		img, err := m.find(ref)
		if err != nil {
			return nil, nil, err
		}
		i := slices.IndexFunc(saved, func(s SavedImage) bool { return s.ID == img.ID })
		if i < 0 {
			i = len(saved)
			images, saved = append(images, img), append(saved, SavedImage{ID: img.ID})
		}
		for _, name := range m.savedNames(img, ref) {
			saved[i].Names = addName(saved[i].Names, name)
		}
	}
	return images, saved, nil
}

// savedNames returns the tag that ref names, or all tags of the image if ref names no tag.
func (m *Manager) savedNames(img *stored, ref string) []string {
	if slices.Contains(img.RepoTags, ref) {
		return []string{ref}
	}
	for _, name := range m.puller.Load().LocalCandidates(ref) {
		if slices.Contains(img.RepoTags, name.String()) {
			return []string{name.String()}
		}
	}
	return img.RepoTags
}

// holdLayers protects the layers of an image from removal.
func (m *Manager) holdLayers(s *saver, img *stored) error {
	for _, id := range img.diffIDs() {
		l, ok := s.lease.Hold(id)
		if !ok {
			return fmt.Errorf("layer %s: %w", id, m.layerError(id))
		}
		if s.layers[id] == nil {
			s.layers[id] = &savedLayer{layer: l, total: int64(l.Bytes), state: saveWaiting} //nolint:gosec // disk usage
			s.order = append(s.order, s.layers[id])
		}
	}
	return nil
}

// source returns an image for the archive. The config has the diff IDs of the tars that WriteTar writes.
func (s *saver) source(ctx context.Context, img *stored) (archive.Source, error) {
	source := archive.Source{Annotations: img.Annotations}
	var diffIDs []digest.Digest
	for _, id := range img.diffIDs() {
		l := s.layers[id]
		if l.digest == "" {
			if err := s.measure(ctx, l); err != nil {
				return source, err
			}
		}
		diffIDs = append(diffIDs, l.digest)
		source.Layers = append(source.Layers, archive.Layer{Digest: l.digest, Size: l.size, Write: func(ctx context.Context, w io.Writer) error {
			return s.write(ctx, l, w)
		}})
	}
	var err error
	source.Config, err = withDiffIDs(img.RawConfig, img.diffIDs(), diffIDs)
	return source, err
}

// measure calculates the digest and the size of the tar of a layer.
func (s *saver) measure(ctx context.Context, l *savedLayer) error {
	sum := digest.Canonical.Digester()
	l.state = saveReading
	if err := l.layer.WriteTar(ctx, &saveWriter{s, l, sum.Hash()}); err != nil {
		return err
	}
	l.digest, l.size = sum.Digest(), l.bytes
	l.state, l.bytes, l.total = saveWaiting, 0, l.size
	return nil
}

// write writes the tar of a layer to the archive.
func (s *saver) write(ctx context.Context, l *savedLayer, w io.Writer) error {
	l.state = saveWriting
	if err := l.layer.WriteTar(ctx, &saveWriter{s, l, w}); err != nil {
		return err
	}
	l.state = saveDone
	s.report(time.Now())
	return nil
}

// saveWriter counts the bytes of a layer and reports the progress.
type saveWriter struct {
	s *saver
	l *savedLayer
	w io.Writer
}

func (w *saveWriter) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	w.l.bytes += int64(n)
	if now := time.Now(); now.Sub(w.s.reported) >= saveInterval {
		w.s.report(now)
	}
	return n, err
}

func (s *saver) report(now time.Time) {
	s.reported = now
	if s.progress == nil {
		return
	}
	var p PullProgress
	for _, l := range s.order {
		p.Bytes, p.Total = p.Bytes+l.bytes, p.Total+max(l.total, l.bytes)
		p.Layers = append(p.Layers, pull.LayerProgress{Digest: l.layer.DiffID, Bytes: l.bytes, Total: max(l.total, l.bytes), State: l.state})
	}
	s.progress(p)
}

// withDiffIDs returns a config with other diff IDs. If they are the same, the config is not changed.
func withDiffIDs(config []byte, old, diffIDs []digest.Digest) ([]byte, error) {
	if slices.Equal(old, diffIDs) {
		return config, nil
	}
	var all, rootfs map[string]json.RawMessage
	err := json.Unmarshal(config, &all)
	if err == nil {
		err = json.Unmarshal(all["rootfs"], &rootfs)
	}
	if err == nil {
		rootfs["diff_ids"], err = json.Marshal(diffIDs)
	}
	if err == nil {
		all["rootfs"], err = json.Marshal(rootfs)
	}
	if err != nil {
		return nil, fmt.Errorf("replace diff ids in config: %w: %w", err, errdefs.ErrDataLoss)
	}
	return json.Marshal(all)
}

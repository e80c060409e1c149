package image

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// index is an immutable snapshot of all images, which is read without a lock.
type index struct {
	all       []*stored // ordered by the hexadecimal digits of the id
	list      []Image   // in the same order
	byID      map[ID]*stored
	byName    map[string]*stored  // by tag and digest reference
	broken    map[ID]*brokenImage // images on disk that cannot be used
	usesLayer map[digest.Digest]bool
}

// newIndex returns an index of images and broken images. It sets Pinned of the images.
func newIndex(all []*stored, broken map[ID]*brokenImage, pinned pins) *index {
	x := &index{
		all:  slices.Clone(all),
		byID: make(map[ID]*stored), byName: make(map[string]*stored), broken: make(map[ID]*brokenImage),
		usesLayer: make(map[digest.Digest]bool),
	}
	// The order ignores the algorithm, because findPrefix searches for digits.
	slices.SortFunc(x.all, func(a, b *stored) int { return strings.Compare(a.ID.Encoded(), b.ID.Encoded()) })
	for i, img := range x.all {
		if p := pinned.has(&img.Image); p != img.Pinned {
			updated := *img
			updated.Pinned = p
			img, x.all[i] = &updated, &updated
		}
		x.byID[img.ID] = img
		for _, name := range append(slices.Clone(img.RepoDigests), img.RepoTags...) {
			x.byName[name] = img
		}
		for _, l := range img.Layers {
			x.usesLayer[l.DiffID] = true
		}
		x.list = append(x.list, img.Image)
	}
	for id, b := range broken {
		if _, ok := x.byID[id]; ok {
			continue // the image was pulled again
		}
		x.broken[id] = b
		for _, l := range b.layers {
			x.usesLayer[l] = true
		}
	}
	return x
}

// with returns the images of x with the changed images added or replaced and the removed images left
// out.
func (x *index) with(changed []*stored, removed ...ID) []*stored {
	next := slices.Clone(changed)
	for _, img := range x.all {
		replaced := slices.ContainsFunc(changed, func(c *stored) bool { return c.ID == img.ID })
		if !replaced && !slices.Contains(removed, img.ID) {
			next = append(next, img)
		}
	}
	return next
}

// findPrefix returns the image whose id begins with hexadecimal digits. It requires three digits or more.
func (x *index) findPrefix(hex string) (*stored, error) {
	if len(hex) < 3 || strings.Trim(hex, "0123456789abcdef") != "" {
		return nil, errdefs.ErrNotFound
	}
	i, _ := slices.BinarySearchFunc(x.all, hex, func(s *stored, p string) int { return strings.Compare(s.ID.Encoded(), p) })
	if i == len(x.all) || !strings.HasPrefix(x.all[i].ID.Encoded(), hex) {
		return nil, errdefs.ErrNotFound
	}
	if i+1 < len(x.all) && strings.HasPrefix(x.all[i+1].ID.Encoded(), hex) {
		return nil, fmt.Errorf("image id prefix %.64q is ambiguous: %w", hex, errdefs.ErrInvalidArgument)
	}
	return x.all[i], nil
}

// find returns the image that ref names. fullNames returns the full names that ref can stand for.
func (x *index) find(ref string, fullNames func() []string) (*stored, error) {
	hex := ref
	for _, algorithm := range idAlgorithms {
		hex = strings.TrimPrefix(hex, algorithm.String()+":")
	}
	if id, ok := parseIDHex(hex); ok && (hex == ref || id.String() == ref) {
		if img, ok := x.byID[id]; ok {
			return img, nil
		}
	}
	if img, ok := x.byName[ref]; ok {
		return img, nil
	}
	for _, name := range fullNames() {
		if img, ok := x.byName[name]; ok {
			return img, nil
		}
	}
	img, err := x.findPrefix(hex)
	if errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("image %.256q: %w", ref, err)
	}
	return img, err
}

// pins are the images that garbage collection must not remove.
type pins struct {
	patterns []string    // of names
	loaded   map[ID]bool // images of archives in the archive directories; immutable
}

// has reports whether the image is pinned.
func (p pins) has(img *Image) bool {
	if p.loaded[img.ID] {
		return true
	}
	for _, pattern := range p.patterns {
		for _, name := range append(slices.Clone(img.RepoTags), img.RepoDigests...) {
			if matches(pattern, name) {
				return true
			}
		}
	}
	return false
}

// matches reports whether a name matches a pattern, which can have "*" at the end or at both ends.
func matches(pattern, name string) bool {
	body, prefix := strings.CutSuffix(pattern, "*")
	if !prefix {
		return name == pattern
	}
	if inner, ok := strings.CutPrefix(body, "*"); ok {
		return strings.Contains(name, inner)
	}
	return strings.HasPrefix(name, body)
}

// Get returns the image that ref names. ref is an id with or without its algorithm, a unique prefix
// of an id, a tag or a digest reference. A name without a registry or a tag is completed as for
// Pull. Get returns ErrNotFound if there is no such image, and ErrInvalidArgument if ref is the
// prefix of several ids.
func (m *Manager) Get(ref string) (Image, error) {
	img, err := m.find(ref)
	if err != nil {
		return Image{}, err
	}
	return img.Image, nil
}

func (m *Manager) find(ref string) (*stored, error) {
	return m.index.Load().find(ref, func() []string {
		var names []string
		for _, n := range m.puller.Load().LocalCandidates(ref) {
			names = append(names, n.String())
		}
		return names
	})
}

// Repositories returns the repositories that ref can stand for, such as "docker.io/library/nginx"
// for "nginx", in the order in which Pull tries them.
func (m *Manager) Repositories(ref string) []string {
	var names []string
	for _, n := range m.puller.Load().LocalCandidates(ref) {
		names = append(names, n.Name())
	}
	return names
}

// List returns all images, ordered by id.
func (m *Manager) List() []Image { return slices.Clone(m.index.Load().list) }

package image

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// index is a snapshot of all images. It is immutable, and so can be read by
// everyone at any time.
type index struct {
	all       []*stored // by id
	list      []Image   // likewise
	byID      map[ID]*stored
	byName    map[string]*stored // by tag and by digest reference
	broken    map[ID]*broken     // on disk, and cannot be used
	usesLayer map[digest.Digest]bool
}

func newIndex(all []*stored, unusable map[ID]*broken, pinned []string) *index {
	x := &index{
		all:  slices.Clone(all),
		byID: make(map[ID]*stored), byName: make(map[string]*stored), broken: make(map[ID]*broken),
		usesLayer: make(map[digest.Digest]bool),
	}
	// By the digits, which prefix searches, and not by the algorithm first.
	slices.SortFunc(x.all, func(a, b *stored) int { return strings.Compare(a.ID.Encoded(), b.ID.Encoded()) })
	for i, img := range x.all {
		if p := isPinned(&img.Image, pinned); p != img.Pinned {
			with := *img
			with.Pinned = p
			img, x.all[i] = &with, &with
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
	for id, b := range unusable {
		if _, ok := x.byID[id]; ok {
			continue // it was pulled again
		}
		x.broken[id] = b
		for _, l := range b.layers {
			x.usesLayer[l] = true
		}
	}
	return x
}

// with returns the images of x with the changed ones put in and the gone ones
// left out.
func (x *index) with(changed []*stored, gone ...ID) []*stored {
	next := slices.Clone(changed)
	for _, img := range x.all {
		replaced := slices.ContainsFunc(changed, func(c *stored) bool { return c.ID == img.ID })
		if !replaced && !slices.Contains(gone, img.ID) {
			next = append(next, img)
		}
	}
	return next
}

// prefix returns the image whose id begins so. Fewer than three digits are not
// taken for one.
func (x *index) prefix(hex string) (*stored, error) {
	if len(hex) < 3 || strings.Trim(hex, "0123456789abcdef") != "" {
		return nil, errdefs.ErrNotFound
	}
	i, _ := slices.BinarySearchFunc(x.all, hex, func(s *stored, p string) int { return strings.Compare(s.ID.Encoded(), p) })
	if i == len(x.all) || !strings.HasPrefix(x.all[i].ID.Encoded(), hex) {
		return nil, errdefs.ErrNotFound
	}
	if i+1 < len(x.all) && strings.HasPrefix(x.all[i+1].ID.Encoded(), hex) {
		return nil, fmt.Errorf("image id %.64q is ambiguous: %w", hex, errdefs.ErrInvalidArgument)
	}
	return x.all[i], nil
}

// find returns the image that ref names. Names without a registry are left to
// full, which returns what they can stand for.
func (x *index) find(ref string, full func() []string) (*stored, error) {
	hex := ref
	for _, algorithm := range idAlgorithms {
		hex = strings.TrimPrefix(hex, algorithm.String()+":")
	}
	if id, ok := idOf(hex); ok && (hex == ref || id.String() == ref) {
		if img, ok := x.byID[id]; ok {
			return img, nil
		}
	}
	if img, ok := x.byName[ref]; ok {
		return img, nil
	}
	for _, name := range full() {
		if img, ok := x.byName[name]; ok {
			return img, nil
		}
	}
	img, err := x.prefix(hex)
	if errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("image %.256q: %w", ref, err)
	}
	return img, err
}

func isPinned(img *Image, patterns []string) bool {
	for _, pattern := range patterns {
		for _, name := range append(slices.Clone(img.RepoTags), img.RepoDigests...) {
			if matches(pattern, name) {
				return true
			}
		}
	}
	return false
}

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

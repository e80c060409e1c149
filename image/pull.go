package image

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"go.podman.io/image/v5/docker/reference"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/image/layer"
	"github.com/criserver/criserver/image/pull"
)

// Pull fetches an image. The same request made while one is under way waits for
// that one; the pull ends when the last of them has left. Layers that the store
// has are not fetched again, whatever image they came with. Errors:
// ErrInvalidArgument, ErrNotFound, ErrUnauthenticated, ErrPermissionDenied,
// ErrUnavailable, ErrDataLoss, ErrResourceExhausted, ErrNotImplemented. When
// the registry cannot be reached or a signature is missing, the error's text
// begins as the kubelet expects it.
func (m *Manager) Pull(ctx context.Context, req PullRequest) (Image, error) {
	key, err := m.pullKey(req)
	if err != nil {
		return Image{}, err
	}
	return m.pulls.Do(ctx, key, func(ctx context.Context) (Image, error) { return m.pull(ctx, key, req) })
}

// Pulls describes the pulls that are under way, the longest running first.
func (m *Manager) Pulls() []PullProgress {
	running := m.puller.Running()
	for i := range running {
		running[i].Callers = m.pulls.Waiters(running[i].Key)
	}
	return running
}

// pullKey tells pulls apart by name, by credential and by namespace: who may
// not have an image does not get it by asking while someone else pulls it.
func (m *Manager) pullKey(req PullRequest) (string, error) {
	b, err := json.Marshal(req)
	if err != nil {
		return "", err
	}
	mac := hmac.New(sha256.New, m.keySalt[:])
	mac.Write(b)
	return hex.EncodeToString(mac.Sum(nil)), nil
}

func newSalt() (salt [32]byte) {
	_, _ = rand.Read(salt[:]) // crypto/rand.Read never fails
	return salt
}

func (m *Manager) pull(ctx context.Context, key string, req PullRequest) (Image, error) {
	lease := m.layers.Lease()
	defer lease.Close()
	res, err := m.puller.Pull(ctx, pull.Request{Ref: req.Ref, Auth: (*pull.Auth)(req.Auth), Namespace: req.Namespace, Key: key}, lease)
	if err != nil {
		return Image{}, m.failed(ctx, lease, err)
	}
	img, err := m.add(ctx, res)
	if err != nil {
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			err = fmt.Errorf("%w: %w", err, errdefs.ErrResourceExhausted)
		}
		return Image{}, m.failed(ctx, lease, fmt.Errorf("store image %q: %w", req.Ref, err))
	}
	return img, nil
}

// failed deletes the layers that a pull has brought if the image is refused or
// the disk is full. Otherwise they are there for the next try.
func (m *Manager) failed(ctx context.Context, lease *layer.Lease, err error) error {
	added := lease.Added()
	lease.Close()
	if pull.KeepsLayers(err) {
		return err
	}
	return errors.Join(err, m.layers.Drop(context.WithoutCancel(ctx), added))
}

// add makes the image of a pull durable and known.
func (m *Manager) add(ctx context.Context, res *pull.Result) (Image, error) {
	unlock, err := m.lockCommit(ctx)
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	old, known := m.now.Load().byID[res.ConfigDigest]
	if !known {
		img := newImage(res)
		img.addNames(res)
		if err := m.place(img, res); err != nil {
			return Image{}, err
		}
		return m.publish(img), nil
	}
	// The same config, so the same layers: only names can be new.
	img := &stored{Image: old.Image, cover: old.cover}
	img.addNames(res)
	if slices.Equal(img.RepoTags, old.RepoTags) && slices.Equal(img.RepoDigests, old.RepoDigests) {
		return old.Image, nil
	}
	img.PulledAt = time.Now()
	if err := m.rewrite(img); err != nil {
		return Image{}, err
	}
	return m.publish(img), nil
}

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

// addNames notes what the image was pulled by. Of an index there are two
// digests, its own and that of the manifest in it for this platform: both name
// this image here, and a pod may ask for either.
func (s *stored) addNames(res *pull.Result) {
	if _, ok := res.Name.(reference.Tagged); ok {
		s.RepoTags = addName(s.RepoTags, res.Name.String())
	}
	for _, d := range []digest.Digest{res.TopDigest, res.ManifestDigest} {
		s.RepoDigests = addName(s.RepoDigests, res.Name.Name()+"@"+d.String())
	}
}

// addName returns names, which are sorted and shared, with name among them.
func addName(names []string, name string) []string {
	i, found := slices.BinarySearch(names, name)
	if found {
		return names
	}
	return slices.Insert(slices.Clone(names), i, name)
}

// publish makes an image known, takes its tags from the images that had them,
// and writes that down as well.
func (m *Manager) publish(img *stored) Image {
	old := m.now.Load()
	losers := make(map[ID]*stored)
	for _, tag := range img.RepoTags {
		if owner, ok := old.byName[tag]; ok && owner.ID != img.ID {
			left := losers[owner.ID]
			if left == nil {
				left = &stored{Image: owner.Image, cover: owner.cover}
			}
			left.RepoTags = slices.DeleteFunc(slices.Clone(left.RepoTags), func(t string) bool { return t == tag })
			losers[owner.ID] = left
		}
	}
	changed := append(slices.Collect(maps.Values(losers)), img)
	m.mu.Lock()
	next := newIndex(old.with(changed), old.broken, m.cfg.PinnedImages)
	m.now.Store(next)
	m.mu.Unlock()
	for _, loser := range losers {
		// A record that keeps the tag does no harm: of two that have it, the
		// image that was pulled later is believed.
		_ = m.rewrite(loser)
	}
	return next.byID[img.ID].Image
}

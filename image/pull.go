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

	"github.com/criserver/criserver/image/layer"
	"github.com/criserver/criserver/image/pull"
	"github.com/criserver/criserver/internal/steps"
)

// Pull pulls an image. If the same request is running already, Pull waits for its result. A pull is
// cancelled when its last caller has left. Layers of any image in the store are not fetched
// again. The errors are ErrInvalidArgument, ErrNotFound,
// ErrUnauthenticated, ErrPermissionDenied, ErrUnavailable, ErrDataLoss, ErrResourceExhausted and
// ErrNotImplemented. If the registry cannot be reached or a signature is missing, the text of the
// error begins as the kubelet expects.
func (m *Manager) Pull(ctx context.Context, req PullRequest) (Image, error) {
	key, err := m.pullKey(req)
	if err != nil {
		return Image{}, err
	}
	return m.pulls.Do(ctx, key, func(ctx context.Context) (Image, error) { return m.pull(ctx, key, req) })
}

// Pulls returns the progress of the running pulls, the longest running first.
func (m *Manager) Pulls() []PullProgress {
	running := m.puller.Load().Running()
	for i := range running {
		running[i].Callers = m.pulls.Waiters(running[i].Key)
	}
	return running
}

// pullKey returns the key of a request. Requests with different names, credentials or namespaces
// have different keys, so that a caller does not get an image through the credential of another
// caller.
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

func (m *Manager) pull(ctx context.Context, key string, req PullRequest) (_ Image, err error) {
	ctx, step := steps.Begin(ctx, steps.ImagePull, stepObject(req), steps.Image(req.Ref))
	defer step.EndWith(&err)
	puller := m.puller.Load()
	lease := m.layers.Lease()
	defer lease.Close()
	res, err := puller.Pull(ctx, pull.Request{Ref: req.Ref, Auth: (*pull.Auth)(req.Auth), Namespace: req.Namespace, Key: key}, lease)
	if err != nil {
		return Image{}, m.dropFailedLayers(ctx, lease, err)
	}
	img, err := m.add(ctx, res)
	if err != nil {
		return Image{}, m.dropFailedLayers(ctx, lease, fmt.Errorf("store image %q: %w", req.Ref, classifyDiskFull(err)))
	}
	return img, nil
}

// stepObject identifies the pod that an image is pulled for.
func stepObject(req PullRequest) steps.Object {
	if req.Pod == "" {
		return steps.Object{}
	}
	return steps.Object{Name: req.Namespace + "/" + req.Pod}
}

// dropFailedLayers deletes the layers that a failed pull has unpacked, if the image is refused or
// the disk is full. Otherwise the layers are kept for the next attempt.
func (m *Manager) dropFailedLayers(ctx context.Context, lease *layer.Lease, err error) error {
	added := lease.Added()
	lease.Close()
	if pull.KeepsLayers(err) {
		return err
	}
	return errors.Join(err, m.layers.Drop(context.WithoutCancel(ctx), added))
}

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// fakePods has the pods that a test has added.
type fakePods struct {
	mu   sync.Mutex
	pods map[string]Pod
}

func (f *fakePods) Pod(id string) (Pod, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.pods[id]
	if !ok {
		return Pod{}, fmt.Errorf("pod %q: %w", id, errdefs.ErrNotFound)
	}
	return p, nil
}

func (f *fakePods) MarkNotReady(id, reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pods[id]
	p.Ready = false
	f.pods[id] = p
}

func (f *fakePods) change(alter func(*Pod)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pods["pod"]
	alter(&p)
	f.pods["pod"] = p
}

// bindImages mounts a new directory for each container.
type bindImages struct {
	dir    string
	config ispec.ImageConfig
	// localtime is the target of a link at /etc/localtime; "" for no link.
	localtime string

	mu       sync.Mutex
	mounts   map[string]string // targets, by container
	labels   map[string]string // requested SELinux labels, by container
	failWith error             // error of Mount and Unmount, or nil
	hold     chan struct{}     // Mount waits until it is closed; nil for no wait
	entered  chan struct{}     // receives a value when Mount begins
}

func newBindImages(t testing.TB, dir string) *bindImages {
	t.Helper()
	return &bindImages{dir: dir, mounts: make(map[string]string), labels: make(map[string]string), entered: make(chan struct{}, 100), config: ispec.ImageConfig{Env: []string{"PATH=/bin"}}}
}

func (b *bindImages) Image(ref string) (Image, error) {
	if ref == "checkpoint" {
		return Image{ID: "sha256:2", Ref: ref, Config: b.config, Annotations: map[string]string{"org.criu.checkpoint.container.name": "a"}}, nil
	}
	if ref != "busybox" {
		return Image{}, fmt.Errorf("image %q: %w", ref, errdefs.ErrNotFound)
	}
	return Image{ID: "sha256:1", Ref: ref, Config: b.config}, nil
}

func (b *bindImages) Mount(ctx context.Context, r RootFS) error {
	containerID, target := r.ContainerID, r.Target
	b.entered <- struct{}{}
	if err := b.gate(ctx); err != nil {
		return err
	}
	dir := filepath.Join(b.dir, containerID)
	for _, d := range []string{"bin", "etc", "tmp", "root"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\nalice:x:1000:1001::/tmp:/bin/sh\n"), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "etc/group"), []byte("root:x:0:\nteam:x:3000:alice\n"), 0o644); err != nil {
		return err
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), busybox, 0o755); err != nil {
		return err
	}
	for _, applet := range strings.Fields("sh sleep cat echo id true false kill env pwd head setsid touch ls mount") {
		if err := os.Link(filepath.Join(dir, "bin/busybox"), filepath.Join(dir, "bin", applet)); err != nil {
			return err
		}
	}
	if b.localtime != "" {
		if err := os.Symlink(b.localtime, filepath.Join(dir, "etc/localtime")); err != nil {
			return err
		}
	}
	if err := unix.Mount(dir, target, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mounts[containerID], b.labels[containerID] = target, r.Label
	return nil
}

// MountVolume returns a directory with one file instead of an image.
func (b *bindImages) MountVolume(_ context.Context, v ImageVolume) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failWith != nil {
		return "", b.failWith
	}
	dir := filepath.Join(b.dir, v.ContainerID+"-volumes", strconv.Itoa(v.Index), v.SubPath)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "image"), []byte(v.ImageID+v.SubPath+"\n"), 0o644)
}

func (b *bindImages) gate(ctx context.Context) error {
	b.mu.Lock()
	hold, err := b.hold, b.failWith
	b.mu.Unlock()
	if err != nil || hold == nil {
		return err
	}
	select {
	case <-hold:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *bindImages) Unmount(_ context.Context, containerID string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failWith != nil {
		return b.failWith
	}
	if err := os.RemoveAll(filepath.Join(b.dir, containerID+"-volumes")); err != nil {
		return err
	}
	target, ok := b.mounts[containerID]
	if !ok {
		return nil
	}
	if err := unix.Unmount(target, 0); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return err
	}
	delete(b.mounts, containerID)
	return os.RemoveAll(filepath.Join(b.dir, containerID))
}

func (b *bindImages) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failWith = err
}

func (b *bindImages) mounted() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.mounts)
}

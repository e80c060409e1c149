package inspect

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/checkpoint/archive"
	"github.com/criserver/criserver/internal/ctxio"
)

// openPod describes the pod checkpoint in a directory.
func openPod(ctx context.Context, path string, o Options) (*Checkpoint, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	m, err := archive.ReadManifest(root)
	if errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("the directory is not a pod checkpoint, or the checkpoint is not complete: %w", err)
	}
	if err != nil {
		return nil, err
	}
	out := &Checkpoint{
		Kind: KindPod, Origin: m.Origin,
		Pod: Pod{PodName: m.Pod.PodName, Hostname: m.Pod.Hostname, Network: m.Pod.Network, IPC: m.Pod.IPC, SELinux: m.Pod.SELinux},
	}
	if o.Key != nil {
		err := m.Verify(o.Key)
		if err != nil && !errdefs.IsFailedPrecondition(err) {
			return nil, err
		}
		authentic := err == nil
		out.Authentic = &authentic
	}
	for _, c := range m.Containers {
		found := podContainer(ctx, root, &c)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		out.Containers = append(out.Containers, *found)
		out.Size += found.Size
	}
	for _, p := range m.Parts {
		found := podFile(ctx, root, p.File)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		out.Files = append(out.Files, found)
		out.Size += found.Size
	}
	out.NotContained = notContained(out)
	return out, nil
}

// podContainer describes the archive of a container of the manifest.
func podContainer(ctx context.Context, root *os.Root, want *archive.ManifestContainer) *Container {
	c := &Container{
		Name: want.Name, Attempt: want.Attempt, ID: want.ID, ImageRef: want.ImageRef, ImageID: want.ImageID,
		File: File{Path: want.Path, Size: want.Size, Digest: DigestUnknown}, Parts: []Part{},
	}
	f, err := want.Open(root)
	if err != nil {
		c.Error = err.Error()
		return c
	}
	defer f.Close()
	found, err := readArchive(ctx, f)
	if err != nil {
		c.Error = err.Error()
		return c
	}
	found.Path = want.Path
	found.compare(want.SHA256)
	if found.Error == "" {
		found.Error = differences(found, want)
	}
	return found
}

// differences returns how the description in an archive differs from the manifest, or "".
func differences(c *Container, want *archive.ManifestContainer) string {
	for _, field := range []struct{ name, got, want string }{
		{"name", c.Name, want.Name}, {"id", c.ID, want.ID}, {"image", c.ImageID, want.ImageID},
	} {
		if field.got != field.want {
			return fmt.Sprintf("the %s in the archive is %.100q, in the manifest %.100q", field.name, field.got, field.want)
		}
	}
	return ""
}

// podFile describes another file of a pod checkpoint.
func podFile(ctx context.Context, root *os.Root, want archive.File) File {
	out := File{Path: want.Path, Size: want.Size, Digest: DigestUnknown}
	f, err := want.Open(root)
	if err == nil {
		defer f.Close()
		hash := sha256.New()
		if _, err = io.Copy(hash, ctxio.NewReader(ctx, f)); err == nil {
			out.SHA256 = hex.EncodeToString(hash.Sum(nil))
			out.compare(want.SHA256)
		}
	}
	if err != nil {
		out.Error = err.Error()
	}
	return out
}

// compare compares the digest of a file with the manifest.
func (f *File) compare(want string) {
	if f.SHA256 == want {
		f.Digest = DigestVerified
		return
	}
	f.Digest, f.Error = DigestDiffers, cmp.Or(f.Error, fmt.Sprintf("the digest differs from the manifest: got %s, want %s", f.SHA256, want))
}

package restore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/checkpoint/archive"
	"github.com/criserver/criserver/image/layer"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// unpacker unpacks the archive of a container, and keeps the description of the container for the comparison with the
// new container.
type unpacker struct {
	ctx  context.Context //nolint:containedctx // of the request; the creation of a container has another context
	m    *Manager
	size int64  // of the archive, in bytes
	criu string // version of the CRIU that restores the processes
	info *archive.ContainerInfo
	spec *specs.Spec // of the container that was checkpointed
	used int64       // bytes of the entries so far
}

// source returns the entries of an archive. *archive.Reader and *archive.Tree implement source.
type source interface {
	Next() (*archive.Entry, error)
}

// unpack writes the changed files to rootfs and the CRIU images to images. All other entries are only compared or
// ignored, because the archive must not configure the new container.
func (u *unpacker) unpack(ctx context.Context, in source, rootfs, images string) error {
	out, err := os.OpenRoot(images)
	if err != nil {
		return err
	}
	defer out.Close()
	for {
		e, err := in.Next()
		if errors.Is(err, io.EOF) {
			if err := u.complete(out); err != nil {
				return err
			}
			return repairTimers(images, u.criu)
		}
		if err == nil {
			err = u.entry(ctx, e, rootfs, out)
		}
		if err == nil && u.ctx.Err() != nil {
			err = context.Cause(u.ctx)
		}
		if err != nil {
			return err
		}
	}
}

// entry unpacks one entry of the archive.
func (u *unpacker) entry(ctx context.Context, e *archive.Entry, rootfs string, images *os.Root) error {
	// An entry with holes would be larger than the archive.
	if u.used += e.Size; u.used > u.size {
		return invalid("the entries of the checkpoint archive have more bytes than the archive")
	}
	switch e.Name {
	case archive.InfoFile, archive.SpecFile, archive.DeletedFile:
		b, err := e.Bytes()
		if err != nil {
			return err
		}
		return u.metadata(e.Name, b, rootfs)
	case archive.RootFSDiffFile:
		if err := layer.Apply(ctx, rootfs, e, layer.Limits{Entries: archive.MaxEntries, Bytes: e.Size}); err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
		return nil
	case archive.ShmFile:
		return mismatch("the checkpoint has files of /dev/shm, which belongs to the pod: make a checkpoint of the pod")
	}
	if e.Image() == "" {
		return nil
	}
	f, err := images.OpenFile(e.Image(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, e)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		err = fmt.Errorf("%s: %w: %w", e.Name, err, errdefs.ErrResourceExhausted)
	}
	return errors.Join(err, f.Close())
}

// metadata parses an entry with JSON.
func (u *unpacker) metadata(name string, b []byte, rootfs string) (err error) {
	switch name {
	case archive.InfoFile:
		if u.info, err = archive.ParseInfo(b); err == nil {
			err = u.m.checkOrigin(&u.info.Origin)
		}
		return err
	case archive.SpecFile:
		u.spec = &specs.Spec{}
		if err := json.Unmarshal(b, u.spec); err != nil {
			return invalid("%s: %v", name, err)
		}
		return nil
	}
	var deleted []string
	if err := json.Unmarshal(b, &deleted); err != nil {
		return invalid("%s: %v", name, err)
	}
	return remove(rootfs, deleted)
}

// remove removes files of a root file system. No link leads out of the root file system.
func remove(rootfs string, paths []string) error {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, p := range paths {
		name := strings.TrimPrefix(p, "/")
		if name == p || name != filepath.Clean(name) || name == "." || !filepath.IsLocal(name) {
			return invalid("%s: %q is not the absolute path of a file", archive.DeletedFile, p)
		}
		if err := root.RemoveAll(name); err != nil {
			return fmt.Errorf("%s: %w", archive.DeletedFile, err)
		}
	}
	return nil
}

// complete returns an error if the archive lacks an entry that a restore needs.
func (u *unpacker) complete(images *os.Root) error {
	switch {
	case u.info == nil:
		return invalid("the checkpoint archive has no %s", archive.InfoFile)
	case u.spec == nil || u.spec.Process == nil || u.spec.Root == nil || u.spec.Linux == nil:
		return invalid("the checkpoint archive has no complete %s", archive.SpecFile)
	}
	for _, name := range []string{"inventory.img", "pstree.img", descriptors} {
		if _, err := images.Lstat(name); err != nil {
			return invalid("the checkpoint archive has no %s", archive.ImagePath(name))
		}
	}
	return nil
}

// descriptors is the file in which runc writes the names of the pipes of the streams.
const descriptors = "descriptors.json"

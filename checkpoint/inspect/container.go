package inspect

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/checkpoint/archive"
	"github.com/criserver/criserver/internal/ctxio"
)

// Names of the parts of an archive.
const (
	partMemory   = "memory"
	partImages   = "other images of CRIU"
	partRootFS   = "changed files"
	partShm      = "/dev/shm"
	partLog      = "log of the container"
	partDumpLog  = "log of CRIU"
	partMetadata = "metadata"
)

// partNames are the parts of an archive in the order of the description.
var partNames = []string{partMemory, partImages, partRootFS, partShm, partLog, partDumpLog, partMetadata}

// partOf returns the part that an entry belongs to.
func partOf(e *archive.Entry) string {
	image := e.Image()
	switch {
	case strings.HasPrefix(image, "pages-"):
		return partMemory
	case image != "":
		return partImages
	}
	switch e.Name {
	case archive.RootFSDiffFile:
		return partRootFS
	case archive.ShmFile:
		return partShm
	case archive.ContainerLogFile:
		return partLog
	case archive.DumpLogFile, archive.StatsFile:
		return partDumpLog
	}
	return partMetadata
}

// openContainer describes an archive without a manifest.
func openContainer(ctx context.Context, f *os.File, o Options) (*Checkpoint, error) {
	c, err := readArchive(ctx, f)
	if err != nil {
		return nil, err
	}
	c.Path = f.Name()
	out := &Checkpoint{Kind: KindContainer, Size: c.Size, Containers: []Container{*c}}
	if c.info != nil {
		out.Origin, out.Pod.PodName = c.info.Origin, c.info.Pod
	}
	if o.Key != nil {
		authentic, err := authenticates(ctx, f, o.Key)
		if err != nil {
			return nil, err
		}
		out.Authentic = &authentic
	}
	out.NotContained = notContained(out)
	return out, nil
}

// authenticates reads an archive again, and reports whether the daemon with the key has written the archive.
func authenticates(ctx context.Context, f *os.File, key archive.Key) (bool, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return false, err
	}
	r := archive.NewAuthenticReader(ctxio.NewReader(ctx, f), key)
	for {
		_, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return true, nil
		case errdefs.IsFailedPrecondition(err):
			return false, nil
		case err != nil:
			return false, err
		}
	}
}

// readArchive reads an archive to its end, and describes it.
func readArchive(ctx context.Context, f *os.File) (*Container, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	c := &Container{File: File{Size: info.Size(), Digest: DigestUnknown}}
	hash := sha256.New()
	// io.TeeReader has no Seek method, so the Reader reads all bytes.
	in := io.TeeReader(ctxio.NewReader(ctx, f), hash)
	r := archive.NewReader(in)
	parts := make(map[string]*Part)
	images := false
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		name := partOf(e)
		if parts[name] == nil {
			parts[name] = &Part{Name: name}
		}
		parts[name].Files++
		parts[name].Size += e.Size
		images = images || e.Image() != ""
		if err := c.readEntry(e); err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name, err)
		}
	}
	if _, err := io.Copy(io.Discard, in); err != nil { // the rest after the end of the tar
		return nil, err
	}
	if !images || c.Name == "" {
		return nil, fmt.Errorf("the file is not the archive of a container: it has no images of CRIU, or no description of the container: %w",
			errdefs.ErrInvalidArgument)
	}
	if c.info != nil && !r.Signed() {
		return nil, fmt.Errorf("the archive is truncated, because it does not end with %s: %w", archive.MACFile, errdefs.ErrInvalidArgument)
	}
	for _, name := range partNames {
		if p := parts[name]; p != nil {
			c.Parts = append(c.Parts, *p)
		}
	}
	c.SHA256 = hex.EncodeToString(hash.Sum(nil))
	return c, nil
}

// readEntry reads the entries that describe the container.
func (c *Container) readEntry(e *archive.Entry) error {
	switch e.Name {
	case archive.InfoFile:
		return c.readInfo(e)
	case archive.ConfigFile:
		var config archive.Config
		if err := readJSON(e, &config); err != nil {
			return err
		}
		c.CreatedAt = config.CreatedTime
		if c.info == nil {
			c.Name, c.ID, c.ImageRef, c.ImageID = config.Name, config.ID, config.RootfsImageName, config.RootfsImage
		}
	case archive.DeletedFile:
		var deleted []string
		if err := readJSON(e, &deleted); err != nil {
			return err
		}
		c.DeletedFiles = len(deleted)
	case archive.MountsFile:
		var mounts []archive.BindMount
		if err := readJSON(e, &mounts); err != nil {
			return err
		}
		for _, m := range mounts {
			c.BindMounts = append(c.BindMounts, m.Destination)
		}
		slices.Sort(c.BindMounts)
	}
	return nil
}

// readInfo reads the description of the container that criserver writes.
func (c *Container) readInfo(e *archive.Entry) error {
	b, err := e.Bytes()
	if err != nil {
		return err
	}
	if c.info, err = archive.ParseInfo(b); err != nil {
		return err
	}
	i := &c.info.Container
	c.Name, c.Attempt, c.ID, c.ImageRef, c.ImageID, c.Args = i.Name, i.Attempt, i.ID, i.ImageRef, i.ImageID, i.Args
	return nil
}

// readJSON decodes the content of an entry into v.
func readJSON(e *archive.Entry, v any) error {
	b, err := e.Bytes()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return nil
}

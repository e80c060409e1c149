package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/criserver/criserver/checkpoint/filetar"
	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/image/changes"
	"github.com/criserver/criserver/internal/periodic"
	"github.com/criserver/criserver/oci/runtime"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Names in the directory of a capture.
const (
	imagesDir  = "images"
	workDir    = "work"
	rootfsFile = "rootfs.tar"
	shmFile    = "shm.tar"
)

// capture is the state of one frozen container.
type capture struct {
	s    *session
	held *container.Held
	dir  string // below the work directory

	spec    []byte // the OCI config
	parsed  specs.Spec
	deleted []string // absolute paths of files of the image that the container has deleted
	log     *os.File // the log of the container, or nil
	logSize int64    // size of the log in bytes at the time of the capture
}

// run captures the container while it is frozen.
func (c *capture) run(ctx context.Context) error {
	images, work := filepath.Join(c.dir, imagesDir), filepath.Join(c.dir, workDir)
	for _, d := range []string{c.dir, images, work} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
	}
	if err := c.readSpec(); err != nil {
		return err
	}
	stop := c.watch(images)
	err := c.held.Dump(ctx, runtime.Checkpoint{ImageDir: images, WorkDir: work, CRIU: c.s.program.Path, Mark: c.s.intent.ID})
	stop()
	if err != nil {
		return err
	}
	c.report(PhaseFiles, 0, 0)
	if err := c.writeChanges(ctx); err != nil {
		return fmt.Errorf("save the files of container %q: %w", short(c.held.ID), err)
	}
	c.openLog()
	return nil
}

func (c *capture) name() string { return c.held.Config.GetMetadata().GetName() }

func (c *capture) report(phase string, bytes, total int64) {
	c.s.progress(Progress{Phase: phase, Container: c.name(), Bytes: bytes, Total: total})
}

func (c *capture) readSpec() (err error) {
	if c.spec, err = os.ReadFile(c.held.SpecFile()); err != nil {
		return err
	}
	if err := json.Unmarshal(c.spec, &c.parsed); err != nil {
		return fmt.Errorf("OCI config of container %q: %w", short(c.held.ID), err)
	}
	return nil
}

// watchInterval is the time between two reports of a dump.
const watchInterval = 200 * time.Millisecond

// watch reports the size of the CRIU images until stop is called.
func (c *capture) watch(images string) (stop func()) {
	total := c.s.m.cfg.Cgroups.MemoryUsage(c.held.ProcessCgroup)
	c.report(PhaseDump, 0, total)
	return periodic.Start(watchInterval, func() { c.report(PhaseDump, dirSize(images), total) })
}

// dirSize returns the sum of the sizes of the files in a directory. It is used only for reports of the progress, so
// dirSize ignores files that it cannot read.
func dirSize(dir string) (size int64) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			size += info.Size()
		}
	}
	return size
}

// writeChanges writes the changed files of the root file system.
func (c *capture) writeChanges(ctx context.Context) error {
	root, err := c.s.m.cfg.Images.ContainerRootFS(c.held.ID)
	if err != nil {
		return err
	}
	r := filetar.RootFS{Layers: changes.Layers{Upper: root.Upper}, Merged: c.held.RootFS}
	for _, l := range root.Lower {
		r.Lower = append(r.Lower, l.Path)
	}
	f, err := os.OpenFile(filepath.Join(c.dir, rootfsFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	c.deleted, err = filetar.WriteChanges(ctx, r, f)
	return errors.Join(err, f.Close())
}

// openLog opens the log of the container before the monitor can rotate the log. If the log cannot be opened, the
// checkpoint does not contain the log.
func (c *capture) openLog() {
	if c.held.LogPath == "" {
		return
	}
	f, err := os.Open(c.held.LogPath)
	if err != nil {
		c.s.log.WithError(err).Warn("the checkpoint does not contain the log of the container")
		return
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		_ = f.Close()
		return
	}
	c.log, c.logSize = f, info.Size()
}

func (c *capture) close() {
	if c.log != nil {
		_ = c.log.Close()
	}
}

// writeShm writes a tar of the files in the /dev/shm of a pod. If /dev/shm is empty, writeShm creates no file and
// returns false.
func writeShm(ctx context.Context, shm, file string) (found bool, err error) {
	if shm == "" {
		return false, nil // the /dev/shm of the node
	}
	top, err := os.Open(shm)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer top.Close()
	names, err := top.Readdirnames(-1)
	if err != nil || len(names) == 0 {
		return false, err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return false, err
	}
	w := filetar.New(ctx, top, f)
	for _, name := range names {
		if err = w.AddTree(name); err != nil {
			break
		}
	}
	if err == nil {
		err = w.Close()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return false, fmt.Errorf("save /dev/shm: %w", err)
	}
	return true, nil
}

package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/criserver/criserver/checkpoint/archive"
	"google.golang.org/protobuf/encoding/protojson"
)

// maxLog is the maximum size of container.log in bytes. A longer log is cut at the start.
const maxLog = 64 << 20

// assemble writes the archive of a captured container to f, syncs f, and returns the size and the digest of the
// archive. assemble deletes each file of the capture after copying the file to the archive, so the disk needs less
// space.
func (c *capture) assemble(ctx context.Context, f *os.File) (_ archive.File, err error) {
	root, err := os.OpenRoot(c.dir)
	if err != nil {
		return archive.File{}, err
	}
	defer root.Close()
	w := archive.NewWriter(ctx, f, time.Now(), c.s.key)
	if err := c.addMetadata(w); err != nil {
		return archive.File{}, err
	}
	for _, move := range []struct{ entry, file string }{
		{archive.RootFSDiffFile, rootfsFile},
		{archive.ShmFile, shmFile},
		{archive.DumpLogFile, filepath.Join(workDir, "dump.log")},
		{archive.StatsFile, filepath.Join(workDir, "stats-dump")},
	} {
		if _, err := root.Lstat(move.file); errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := addAndDelete(w, root, move.entry, move.file); err != nil {
			return archive.File{}, err
		}
	}
	if err := c.addImages(w, root); err != nil {
		return archive.File{}, err
	}
	if c.log != nil {
		if err := w.Section(archive.ContainerLogFile, c.log, max(0, c.logSize-maxLog), c.logSize); err != nil {
			return archive.File{}, err
		}
	}
	file, err := w.Close()
	if err == nil {
		err = f.Sync()
	}
	return file, err
}

func addAndDelete(w *archive.Writer, root *os.Root, entry, file string) error {
	if err := w.File(entry, root, file); err != nil {
		return err
	}
	return root.Remove(file)
}

// addImages adds the images of CRIU.
func (c *capture) addImages(w *archive.Writer, root *os.Root) error {
	images := filepath.Join(c.dir, imagesDir)
	entries, err := os.ReadDir(images)
	if err != nil {
		return err
	}
	if err := w.Images(); err != nil {
		return err
	}
	total, done := dirSize(images), int64(0)
	for _, e := range entries {
		c.report(PhaseWrite, done, total)
		info, err := e.Info()
		if err != nil {
			return err
		}
		if err := addAndDelete(w, root, archive.ImagePath(e.Name()), filepath.Join(imagesDir, e.Name())); err != nil {
			return err
		}
		done += info.Size()
	}
	c.report(PhaseWrite, done, total)
	return nil
}

// addMetadata adds the files that describe the container.
func (c *capture) addMetadata(w *archive.Writer) error {
	info, err := c.info()
	if err != nil {
		return err
	}
	if err := w.JSON(archive.InfoFile, info); err != nil {
		return err
	}
	if err := w.Bytes(archive.SpecFile, c.spec); err != nil {
		return err
	}
	if err := w.JSON(archive.ConfigFile, c.config()); err != nil {
		return err
	}
	if err := w.JSON(archive.MountsFile, c.bindMounts()); err != nil {
		return err
	}
	deleted := c.deleted
	if deleted == nil {
		deleted = []string{}
	}
	return w.JSON(archive.DeletedFile, deleted)
}

// info returns the description of the container.
func (c *capture) info() (*archive.ContainerInfo, error) {
	h, s := c.held, c.s
	config, err := protojson.Marshal(h.Config)
	if err != nil {
		return nil, err
	}
	process := c.parsed.Process
	meta := h.Config.GetMetadata()
	return &archive.ContainerInfo{
		Origin: s.m.origin(h.RuntimeHandler, s.program, s.version, s.started),
		Container: archive.Container{
			ID: h.ID, Name: meta.GetName(), Attempt: meta.GetAttempt(), ImageRef: h.ImageRef, ImageID: h.ImageID,
			Terminal: h.Config.GetTty(), Stdin: h.Config.GetStdin(), StdinOnce: h.Config.GetStdinOnce(),
			Args: process.Args, Env: process.Env, Cwd: process.Cwd, UID: h.UID, GID: h.GID, Groups: h.SupplementalGroups,
			StopSignal: int(h.StopSignal), ReadonlyRootFS: c.parsed.Root != nil && c.parsed.Root.Readonly,
			Config: config,
		},
		Pod: s.podName(),
	}, nil
}

func (s *session) podName() archive.PodName {
	meta := s.pod.Config.GetMetadata()
	return archive.PodName{
		ID: s.pod.ID, Name: meta.GetName(), Namespace: meta.GetNamespace(), UID: meta.GetUid(), Attempt: meta.GetAttempt(),
	}
}

// config returns the description that Podman and checkpointctl know.
func (c *capture) config() *archive.Config {
	h := c.held
	return &archive.Config{
		ID: h.ID, Name: c.name(), RootfsImage: h.ImageID, RootfsImageRef: h.ImageRef, RootfsImageName: h.ImageRef,
		OCIRuntime: filepath.Base(h.Runtime.Path), CreatedTime: h.CreatedAt, CheckpointedAt: c.s.started,
	}
}

// bindMounts returns the bind mounts of the container.
func (c *capture) bindMounts() []archive.BindMount {
	mounts := []archive.BindMount{}
	for _, m := range c.parsed.Mounts {
		if m.Type != "bind" {
			continue
		}
		info, err := os.Stat(m.Source)
		if err != nil {
			continue // the host has deleted the file, which the mount keeps
		}
		kind := "file"
		if info.IsDir() {
			kind = "directory"
		}
		mounts = append(mounts, archive.BindMount{
			Source: m.Source, Destination: m.Destination, FileType: kind, Permissions: uint32(info.Mode().Perm()),
		})
	}
	return mounts
}

// writeManifest signs the manifest of a pod checkpoint, writes the manifest and syncs it.
func (s *session) writeManifest(root *os.Root, manifest *archive.Manifest) error {
	if err := errors.Join(manifest.Check(), manifest.Sign(s.key)); err != nil {
		return err
	}
	b, err := json.MarshalIndent(manifest, "", "  ")
	if err != nil {
		return err
	}
	if len(b) >= archive.MaxJSON {
		return failedPrecondition("the configs of the pod and its containers are too large for %s, whose limit is %d bytes", archive.ManifestFile, archive.MaxJSON)
	}
	const temporary = partialDir + "/" + archive.ManifestFile
	f, err := root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return root.Rename(temporary, archive.ManifestFile)
}

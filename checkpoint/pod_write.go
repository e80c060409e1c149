package checkpoint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/criserver/criserver/checkpoint/archive"
	"github.com/criserver/criserver/internal/ctxio"
	"github.com/criserver/criserver/internal/ids"
	"google.golang.org/protobuf/encoding/protojson"
)

// writePod writes the checkpoint of the held containers.
func (s *session) writePod(ctx context.Context, root *os.Root, output *outputDir) (err error) {
	s.intent = &intent{ID: ids.New(), Cgroups: s.cgroups(), Work: filepath.Join(output.Path, partialDir), Output: output}
	if err := s.m.begin(s.intent); err != nil {
		return err
	}
	size := int64(0)
	defer func() {
		if err != nil {
			err = errors.Join(err, removeOutput(root))
		}
		err = errors.Join(err, s.cleanup())
		s.finish(KindPod, size, err)
	}()
	if err := s.run(ctx); err != nil {
		return err
	}
	manifest, err := s.writeFiles(ctx, root)
	if err != nil {
		return err
	}
	for _, c := range manifest.Containers {
		size += c.Size
	}
	for _, p := range manifest.Parts {
		size += p.Size
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := s.writeManifest(root, manifest); err != nil {
		return err
	}
	return syncDirs(root)
}

// writeFiles writes the archives and the parts, and returns the manifest.
func (s *session) writeFiles(ctx context.Context, root *os.Root) (*archive.Manifest, error) {
	if err := root.Mkdir(archive.ContainersDir, 0o700); err != nil {
		return nil, err
	}
	handler := s.held[0].RuntimeHandler
	manifest := &archive.Manifest{Origin: s.m.origin(handler, s.program, s.version, s.started)}
	var err error
	if manifest.Pod, err = s.describePod(); err != nil {
		return nil, err
	}
	for i, c := range s.captures {
		path := archive.ContainerPath(i, c.name())
		file, err := c.writeArchive(ctx, root, path)
		if err != nil {
			return nil, fmt.Errorf("write archive of container %q: %w", short(c.held.ID), err)
		}
		file.Path = path
		meta := c.held.Config.GetMetadata()
		config, err := protojson.Marshal(c.held.Config)
		if err != nil {
			return nil, err
		}
		manifest.Containers = append(manifest.Containers, archive.ManifestContainer{
			Name: meta.GetName(), Attempt: meta.GetAttempt(), ID: c.held.ID, ImageRef: c.held.ImageRef, ImageID: c.held.ImageID,
			Config: config, File: file,
		})
	}
	if s.hasShm {
		file, err := moveShm(ctx, root)
		if err != nil {
			return nil, err
		}
		manifest.Parts = append(manifest.Parts, archive.Part{Name: archive.PartShm, File: file})
	}
	return manifest, nil
}

// writeArchive writes the archive of the container to a new file in the directory of the checkpoint.
func (c *capture) writeArchive(ctx context.Context, root *os.Root, path string) (archive.File, error) {
	f, err := root.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return archive.File{}, err
	}
	file, err := c.assemble(ctx, f)
	return file, errors.Join(err, f.Close())
}

// moveShm makes the temporary file with the files of /dev/shm a part of the checkpoint.
func moveShm(ctx context.Context, root *os.Root) (archive.File, error) {
	file := archive.File{Path: archive.PodShmFile}
	f, err := root.Open(partialDir + "/" + shmFile)
	if err != nil {
		return file, err
	}
	defer f.Close()
	h := sha256.New()
	if file.Size, err = io.Copy(h, ctxio.NewReader(ctx, f)); err != nil {
		return file, err
	}
	file.SHA256 = hex.EncodeToString(h.Sum(nil))
	if err := f.Sync(); err != nil {
		return file, err
	}
	return file, root.Rename(partialDir+"/"+shmFile, archive.PodShmFile)
}

// describePod returns the description of the pod in the manifest.
func (s *session) describePod() (archive.Pod, error) {
	p := archive.Pod{
		PodName: s.podName(), Hostname: s.pod.HostName, Network: archive.NamespaceOfPod, IPC: archive.NamespaceOfPod,
	}
	if s.pod.Namespaces.Net == "" {
		p.Network = archive.NamespaceOfNode
	}
	if s.pod.Namespaces.IPC == "" {
		p.IPC = archive.NamespaceOfNode
	}
	if s.pod.ProcessLabel != "" {
		p.SELinux = &archive.SELinux{ProcessLabel: s.pod.ProcessLabel, MountLabel: s.pod.MountLabel}
	}
	b, err := protojson.Marshal(s.pod.Config)
	p.Config = b
	return p, err
}

// removeOutput removes the files of a checkpoint from its directory. The directory was empty before.
func removeOutput(root *os.Root) error {
	var errs []error
	for _, name := range []string{archive.ManifestFile, archive.ContainersDir, archive.PodShmFile, partialDir} {
		errs = append(errs, root.RemoveAll(name))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove incomplete checkpoint: %w", err)
	}
	return nil
}

// syncDirs makes the names of all files durable.
func syncDirs(root *os.Root) error {
	for _, name := range []string{archive.ContainersDir, "."} {
		d, err := root.Open(name)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
	}
	return nil
}

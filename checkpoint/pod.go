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
	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/internal/ctxio"
	"github.com/criserver/criserver/internal/ids"
	"github.com/sirupsen/logrus"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// partialDir is the directory for temporary files in the directory of a pod checkpoint.
const partialDir = ".partial"

// PodRequest asks for a checkpoint of a pod.
type PodRequest struct {
	ID  string // or a unique prefix of the id
	Dir string // absolute path of an existing, empty directory
	// Containers are the ids of all running containers of the pod.
	Containers []string
	// Options must be empty, because the daemon defines no options.
	Options map[string]string
	// Progress is called several times a second. It can be nil, and must not wait.
	Progress func(Progress)
}

// Pod writes a checkpoint of all running containers of a pod to a directory. Pod freezes all containers, captures all
// containers, and thaws all containers before it writes the archives. After an error the directory is empty again. The
// CRI requires a deadline of ctx.
//
// Errors: ErrInvalidArgument for a request that breaks a rule of the CRI; ErrNotFound; ErrFailedPrecondition if the
// pod or a container does not run, if the directory is not empty, if another container of the pod runs, or if the pod
// has state that a checkpoint cannot contain; ErrNotImplemented if the runtime handler cannot checkpoint;
// DeadlineExceeded; ErrAborted if a container is being stopped.
func (m *Manager) Pod(ctx context.Context, r PodRequest) (err error) {
	if _, ok := ctx.Deadline(); !ok {
		return invalid("the call must have a deadline")
	}
	if err := r.check(); err != nil {
		return err
	}
	pod, err := m.cfg.Pods.Get(r.ID)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	if err = m.podSession(ctx, pod.ID, r); err != nil {
		return fmt.Errorf("checkpoint pod %q: %w", short(pod.ID), classify(ctx, err))
	}
	return nil
}

func (r *PodRequest) check() error {
	for key := range r.Options {
		return invalid("options: %q is unknown; options must be empty", key)
	}
	switch {
	case r.Dir == "":
		return invalid("output_path must be given")
	case !filepath.IsAbs(r.Dir) || filepath.Clean(r.Dir) != r.Dir || r.Dir == "/":
		return invalid("output_path must be an absolute path of a directory, without \".\" and \"..\", is %q", r.Dir)
	case len(r.Containers) == 0:
		return invalid("container_ids must not be empty")
	case len(r.Containers) > archive.MaxContainers:
		return invalid("container_ids must have at most %d entries", archive.MaxContainers)
	}
	return nil
}

// podSession checks the request against the state of the pod and writes the checkpoint.
func (m *Manager) podSession(ctx context.Context, podID string, r PodRequest) error {
	selected, err := m.selectContainers(podID, r.Containers)
	if err != nil {
		return err
	}
	s, err := m.open(ctx, podID, selected[0].RuntimeHandler, r.Progress)
	if err != nil {
		return err
	}
	s.log = logrus.WithContext(ctx).WithField("pod", podID)
	root, output, err := openOutput(r.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	list := make([]string, len(selected))
	for i, c := range selected {
		list[i] = c.ID
	}
	if ctx, err = s.hold(ctx, list); err != nil {
		return err
	}
	defer s.release()
	// Another container of the pod may have started before all selected containers were held.
	if err := m.checkRunning(podID, selected); err != nil {
		return err
	}
	return s.writePod(ctx, root, output)
}

// selectContainers returns the containers of the request, and checks the rules for them.
func (m *Manager) selectContainers(podID string, requested []string) ([]*container.Snapshot, error) {
	pod, err := m.cfg.Pods.Get(podID)
	if err != nil {
		return nil, err
	}
	if !pod.Ready {
		return nil, failedPrecondition("the pod is not ready: %s", pod.NotReadyReason)
	}
	var selected []*container.Snapshot
	seen, names := make(map[string]bool), make(map[string]bool)
	for i, id := range requested {
		c, err := m.cfg.Containers.Get(id)
		if err != nil {
			return nil, fmt.Errorf("container_ids[%d]: %w", i, err)
		}
		name := c.Config.GetMetadata().GetName()
		switch {
		case c.PodID != podID:
			return nil, invalid("container_ids[%d]: container %q belongs to pod %q", i, short(c.ID), short(c.PodID))
		case seen[c.ID]:
			return nil, invalid("container_ids[%d]: container %q occurs twice", i, short(c.ID))
		case names[name]:
			return nil, failedPrecondition("container_ids[%d]: another container has the name %q", i, name)
		case c.State != container.Running:
			return nil, failedPrecondition("container_ids[%d]: container %q is %s", i, short(c.ID), c.State)
		}
		seen[c.ID], names[name] = true, true
		selected = append(selected, c)
	}
	return selected, m.checkRunning(podID, selected)
}

// checkRunning returns an error if a container of the pod runs and is not selected. The checkpoint would be
// inconsistent, because the container would change shared files while the selected containers are frozen.
func (m *Manager) checkRunning(podID string, selected []*container.Snapshot) error {
	known := make(map[string]bool)
	for _, c := range selected {
		known[c.ID] = true
	}
	for _, c := range m.cfg.Containers.List() {
		if c.PodID == podID && (c.State == container.Running || c.State == container.Unknown) && !known[c.ID] {
			return failedPrecondition("container %q (%s) of the pod is %s and is not in container_ids",
				short(c.ID), c.Config.GetMetadata().GetName(), c.State)
		}
	}
	return nil
}

// openOutput opens the directory of the checkpoint, which must be empty, and returns its identity.
func openOutput(path string) (*os.Root, *outputDir, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil, invalid("output_path: %q does not exist", path)
	case err != nil:
		return nil, nil, err
	case !info.IsDir():
		return nil, nil, invalid("output_path: %q is not a directory", path)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, nil, err
	}
	dir, err := root.Open(".")
	var output *outputDir
	if err == nil {
		if output, err = identify(path, dir); err == nil {
			_, err = dir.Readdirnames(1)
		}
		_ = dir.Close()
	}
	switch {
	case errors.Is(err, io.EOF):
		return root, output, nil
	case err == nil:
		err = failedPrecondition("output_path: %q is not empty", path)
	}
	return nil, nil, errors.Join(err, root.Close())
}

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
		manifest.Containers = append(manifest.Containers, archive.ManifestContainer{
			Name: meta.GetName(), Attempt: meta.GetAttempt(), ID: c.held.ID, ImageRef: c.held.ImageRef, ImageID: c.held.ImageID, File: file,
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
	// Annotations may contain secrets of other programs.
	config := proto.CloneOf(s.pod.Config)
	config.Annotations = nil
	b, err := protojson.Marshal(config)
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

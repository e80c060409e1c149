package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/checkpoint/archive"
	"github.com/criserver/criserver/internal/atomicfile"
	"github.com/criserver/criserver/internal/ids"
	"github.com/sirupsen/logrus"
)

// workPrefix is the beginning of the name of the directory with temporary files, beside the archive of a container.
const workPrefix = ".criserver-checkpoint-"

// ContainerRequest asks for a checkpoint of a container.
type ContainerRequest struct {
	ID       string // or a unique prefix of the id
	Location string // absolute path of the archive
	// Timeout limits the checkpoint. 0 is the default, 10 minutes.
	Timeout time.Duration
	// Progress is called several times a second. It can be nil, and must not wait.
	Progress func(Progress)
}

// Container writes a checkpoint of a running container to an archive. The container continues to run. When the archive
// is complete, it replaces an existing file at the location. After an error Container leaves no file.
//
// Errors: ErrInvalidArgument for an invalid location or timeout; ErrNotFound; ErrFailedPrecondition if the container
// does not run, or has state that a checkpoint cannot contain; ErrNotImplemented if its runtime handler cannot
// checkpoint; DeadlineExceeded; ErrAborted if the container is being stopped.
func (m *Manager) Container(ctx context.Context, r ContainerRequest) (err error) {
	if err := r.check(); err != nil {
		return err
	}
	timeout := r.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	snapshot, err := m.cfg.Containers.Get(r.ID)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	s, err := m.open(ctx, snapshot.PodID, snapshot.RuntimeHandler, r.Progress)
	if err == nil {
		s.log = logrus.WithContext(ctx).WithFields(logrus.Fields{"container": snapshot.ID, "pod": snapshot.PodID})
		if ctx, err = s.hold(ctx, []string{snapshot.ID}); err == nil {
			defer s.release()
			err = s.container(ctx, r.Location)
		}
	}
	if err != nil {
		return fmt.Errorf("checkpoint container %q: %w", short(snapshot.ID), classify(ctx, err))
	}
	return nil
}

func (r *ContainerRequest) check() error {
	switch {
	case r.Location == "":
		return invalid("location must be given")
	case !filepath.IsAbs(r.Location) || filepath.Clean(r.Location) != r.Location || r.Location == "/":
		return invalid("location must be an absolute path of a file, without \".\" and \"..\", is %q", r.Location)
	case r.Timeout < 0:
		return invalid("timeout must not be negative, is %s", r.Timeout)
	}
	info, err := os.Stat(filepath.Dir(r.Location))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return invalid("location: %q is not a directory", filepath.Dir(r.Location))
	}
	if err != nil {
		return err
	}
	if info, err := os.Lstat(r.Location); err == nil && !info.Mode().IsRegular() {
		return invalid("location: %q exists and is not a regular file", r.Location)
	}
	return nil
}

// open returns a session for containers of a pod.
func (m *Manager) open(ctx context.Context, podID, handler string, progress func(Progress)) (*session, error) {
	s := &session{m: m, started: time.Now(), progress: progress}
	if progress == nil {
		s.progress = func(Progress) {}
	}
	var err error
	if s.pod, err = m.cfg.Pods.Get(podID); err != nil {
		return nil, err
	}
	if s.pod.Unreadable {
		return nil, failedPrecondition("the record of pod %q cannot be read", short(podID))
	}
	if s.program, s.version, err = m.cfg.Programs.Programs(ctx, handler); err != nil {
		return nil, err
	}
	s.key, err = m.readKey()
	return s, err
}

// readKey returns the key that signs checkpoints.
func (m *Manager) readKey() (archive.Key, error) {
	m.keyMu.Lock()
	defer m.keyMu.Unlock()
	return archive.MakeKey(m.cfg.KeyFile)
}

// container writes the archive of the only container of the session.
func (s *session) container(ctx context.Context, location string) (err error) {
	id := ids.New()
	s.intent = &intent{
		ID: id, Cgroups: s.cgroups(), Work: filepath.Join(filepath.Dir(location), workPrefix+id[:12]),
	}
	if err := s.m.begin(s.intent); err != nil {
		return err
	}
	size := int64(0)
	defer func() {
		err = errors.Join(err, s.cleanup())
		s.finish(KindContainer, size, err)
	}()
	if err := s.run(ctx); err != nil {
		return err
	}
	temporary := filepath.Join(s.intent.Work, "archive.tar")
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	file, err := s.captures[0].assemble(ctx, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := os.Rename(temporary, location); err != nil {
		return err
	}
	if err := atomicfile.SyncDir(filepath.Dir(location)); err != nil {
		return errors.Join(err, os.Remove(location))
	}
	size = file.Size
	return nil
}

func (s *session) cgroups() (list []string) {
	for _, h := range s.held {
		list = append(list, h.ProcessCgroup)
	}
	return list
}

// finish logs and counts the end of a checkpoint.
func (s *session) finish(kind string, size int64, err error) {
	r := Result{Kind: kind, Err: err, Duration: time.Since(s.started), Frozen: s.frozen, Bytes: size}
	s.m.observe(r)
	if err == nil {
		s.log.WithFields(logrus.Fields{
			"bytes": size, "duration": r.Duration.Round(time.Millisecond).String(), "frozen": r.Frozen.Round(time.Millisecond).String(),
		}).Info("checkpoint written")
	}
}

// failedPrecondition returns an ErrFailedPrecondition.
func failedPrecondition(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrFailedPrecondition)...)
}

package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/criserver/criserver/checkpoint/archive"
	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/internal/criu"
	"github.com/criserver/criserver/sandbox"
	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
)

// session is a running checkpoint of one or more containers of a pod.
type session struct {
	m        *Manager
	pod      *sandbox.Pod
	held     []*container.Held // in the order of the checkpoint
	captures []*capture
	intent   *intent
	program  criu.Program
	version  string // version of the OCI runtime
	key      archive.Key
	started  time.Time
	frozenAt time.Time
	frozen   time.Duration
	hasShm   bool           // /dev/shm has files
	progress func(Progress) // never nil
	log      *logrus.Entry
}

// hold holds the containers in the order of their ids, so two checkpoints cannot deadlock. The returned context ends
// when one of the containers is stopped.
func (s *session) hold(ctx context.Context, ids []string) (context.Context, error) {
	sorted := slices.Sorted(slices.Values(ids))
	byID := make(map[string]*container.Held)
	for _, id := range sorted {
		h, inner, err := s.m.cfg.Containers.Hold(ctx, id)
		if err != nil {
			for _, other := range byID {
				other.Release()
			}
			return ctx, err
		}
		byID[id], ctx = h, inner
	}
	for _, id := range ids {
		s.held = append(s.held, byID[id])
	}
	return ctx, nil
}

func (s *session) release() {
	for _, h := range s.held {
		h.Release()
	}
}

// run freezes, captures and thaws the containers. After run, s.captures describes the files in the work directory.
func (s *session) run(ctx context.Context) (err error) {
	if err := os.Mkdir(s.intent.Work, 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.thaw()) }()
	if err := s.freeze(ctx); err != nil {
		return err
	}
	if err := s.checkIPC(); err != nil {
		return err
	}
	if err := s.capture(ctx); err != nil {
		return err
	}
	s.hasShm, err = writeShm(ctx, s.pod.Shm, s.shmFile())
	return err
}

// shmFile returns the path of the temporary tar with the files of /dev/shm. The archive of a container checkpoint
// contains this tar. In a pod checkpoint the tar is a part.
func (s *session) shmFile() string {
	if s.intent.Output == nil {
		return filepath.Join(s.captures[0].dir, shmFile)
	}
	return filepath.Join(s.intent.Work, shmFile)
}

// freeze freezes all containers at the same time.
func (s *session) freeze(ctx context.Context) error {
	s.progress(Progress{Phase: PhaseFreeze})
	s.frozenAt = time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for _, h := range s.held {
		g.Go(func() error { return h.Freeze(ctx) })
	}
	return g.Wait()
}

// thaw thaws all containers. For a container that is not frozen, thaw does nothing.
func (s *session) thaw() error {
	var errs []error
	for _, h := range s.held {
		errs = append(errs, h.Thaw())
	}
	if !s.frozenAt.IsZero() && s.frozen == 0 {
		s.frozen = time.Since(s.frozenAt)
	}
	return errors.Join(errs...)
}

// checkIPC returns an error if the IPC namespace of the pod has objects. The checkpoint would not contain the objects,
// because no process owns an IPC object.
func (s *session) checkIPC() error {
	path := s.pod.Namespaces.IPC
	if path == "" {
		return nil // the namespace of the node
	}
	objects, err := namespace.CountIPCObjects(path)
	if err != nil {
		return err
	}
	if text := objects.String(); text != "" {
		return failedPrecondition("the IPC namespace of pod %q has %s, which a checkpoint cannot contain", short(s.pod.ID), text)
	}
	return nil
}

// parallelDumps limits how many containers are captured at the same time.
const parallelDumps = 4

func (s *session) capture(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelDumps)
	for i, h := range s.held {
		c := &capture{s: s, held: h, dir: filepath.Join(s.intent.Work, fmt.Sprintf("%02d", i+1))}
		s.captures = append(s.captures, c)
		g.Go(func() error { return c.run(ctx) })
	}
	return g.Wait()
}

// cleanup thaws the containers, removes the work directory, and then removes the intent. After an error the intent
// stays, and the next daemon repeats the cleanup.
func (s *session) cleanup() error {
	for _, c := range s.captures {
		c.close()
	}
	if err := s.thaw(); err != nil {
		return err
	}
	if err := os.RemoveAll(s.intent.Work); err != nil {
		return fmt.Errorf("remove temporary files of the checkpoint: %w", err)
	}
	return s.m.end(s.intent)
}

package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/criserver/criserver/internal/osthread"
	"golang.org/x/sys/unix"
)

// Spawner starts processes directly in a cgroup. To move a running process takes
// milliseconds on a busy machine. On v2 the kernel starts the process in the
// cgroup (clone3 with CLONE_INTO_CGROUP). On v1 a thread of this process lives in
// the cgroup and forks there.
type Spawner struct {
	tree     *Tree
	path     string
	requests chan spawnRequest
	stopped  chan struct{} // closed when Run has returned
}

type spawnRequest struct {
	command func() *exec.Cmd
	done    chan spawnResult
}

type spawnResult struct {
	cmd *exec.Cmd
	err error
}

// NewSpawner returns a Spawner for the cgroup path. Run makes the cgroup with
// MakeWithoutControllers: the processes of a Spawner need no controllers.
func NewSpawner(t *Tree, path string) *Spawner {
	return &Spawner{tree: t, path: path, requests: make(chan spawnRequest), stopped: make(chan struct{})}
}

// Start calls command, starts the returned exec.Cmd in the cgroup, and returns the exec.Cmd. Start waits until Run is
// ready. An exec.Cmd cannot be started twice, so Start calls command again for each further attempt.
func (s *Spawner) Start(command func() *exec.Cmd) (*exec.Cmd, error) {
	w := spawnRequest{command, make(chan spawnResult, 1)}
	select {
	case s.requests <- w:
		r := <-w.done
		return r.cmd, r.err
	case <-s.stopped:
		return nil, errors.New("start process: the spawner has stopped")
	}
}

// Run makes the cgroup and serves Start until ctx ends. Then Run removes the
// cgroup if the cgroup is empty. Run must be called once.
func (s *Spawner) Run(ctx context.Context) error {
	defer close(s.stopped)
	if err := s.tree.MakeWithoutControllers(s.path); err != nil {
		return err
	}
	defer func() { s.tree.Release(s.path) }()
	if s.tree.v2 {
		return s.serveV2(ctx)
	}
	// The thread is in another cgroup than the rest of the process, so the thread
	// must end with serveV1.
	return osthread.Run(func() error { return s.serveV1(ctx) })
}

func (s *Spawner) serveV1(ctx context.Context) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	s.serve(ctx, func(command func() *exec.Cmd) (*exec.Cmd, error) {
		cmd := command()
		return cmd, cmd.Start()
	})
	return nil
}

func (s *Spawner) serveV2(ctx context.Context) error {
	dir, err := s.open()
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	s.serve(ctx, func(command func() *exec.Cmd) (cmd *exec.Cmd, err error) {
		for range maxAttempts {
			if !s.exists(dir) {
				fresh, err := s.remake()
				if err != nil {
					return nil, err
				}
				_ = dir.Close()
				dir = fresh
			}
			if cmd, err = startIn(dir, command()); err == nil || s.exists(dir) {
				break
			}
		}
		return cmd, err
	})
	return nil
}

// maxAttempts is the number of attempts to start a process on v2. Another program can remove the cgroup while it
// is empty, also between the look at the cgroup and the start. systemd does this, also below the cgroup of a unit.
const maxAttempts = 5

// startIn starts a command in a v2 cgroup. If the cgroup has been removed, the error is ENOENT or ENODEV.
func startIn(dir *os.File, cmd *exec.Cmd) (*exec.Cmd, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	return cmd, cmd.Start()
}

// serve starts commands until ctx ends.
func (s *Spawner) serve(ctx context.Context, start func(command func() *exec.Cmd) (*exec.Cmd, error)) {
	for {
		select {
		case w := <-s.requests:
			cmd, err := start(w.command)
			w.done <- spawnResult{cmd, err}
		case <-ctx.Done():
			return
		}
	}
}

// exists reports whether dir is still the directory of the cgroup.
func (s *Spawner) exists(dir *os.File) bool {
	opened, err := dir.Stat()
	if err != nil {
		return false
	}
	now, err := os.Stat(dir.Name())
	return err == nil && os.SameFile(opened, now)
}

func (s *Spawner) open() (*os.File, error) {
	dir, err := os.OpenFile(s.tree.Dir("", s.path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("open cgroup %s: %w", s.path, err)
	}
	return dir, nil
}

// remake creates the cgroup again after another program has removed it.
func (s *Spawner) remake() (*os.File, error) {
	s.tree.Release(s.path)
	if err := s.tree.MakeWithoutControllers(s.path); err != nil {
		return nil, err
	}
	return s.open()
}

// enter moves the calling thread, and no other thread, into the v1 cgroup. On the
// v2 hierarchy of a hybrid machine a single thread cannot be moved. That
// hierarchy limits nothing of a monitor.
func (s *Spawner) enter() error {
	for _, root := range s.tree.roots {
		if root == s.tree.hierarchies[hybridKey] {
			continue
		}
		if err := moveThread(filepath.Join(root, s.path)); err != nil {
			return fmt.Errorf("enter cgroup %s: %w", s.path, err)
		}
	}
	return nil
}

// leave moves the thread out again, so that Run can remove the cgroup before the
// thread has ended.
func (s *Spawner) leave() {
	for _, root := range s.tree.roots {
		_ = moveThread(root)
	}
}

func moveThread(dir string) error {
	return write(filepath.Join(dir, "tasks"), strconv.Itoa(unix.Gettid()))
}

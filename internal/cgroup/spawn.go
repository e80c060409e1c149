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

// Spawner starts processes straight in a cgroup, without the migration of a
// running process, which costs milliseconds on a busy machine. On v2 the
// kernel does it (clone3 with CLONE_INTO_CGROUP); on v1 a thread that lives in
// the cgroup forks them.
type Spawner struct {
	tree *Tree
	path string
	work chan spawn
	gone chan struct{} // closed when Run has returned
}

type spawn struct {
	cmd  *exec.Cmd
	done chan error
}

// NewSpawner returns a Spawner for the cgroup path. Run makes the cgroup.
func NewSpawner(t *Tree, path string) *Spawner {
	return &Spawner{tree: t, path: path, work: make(chan spawn), gone: make(chan struct{})}
}

// Start is cmd.Start in the cgroup. It waits for Run to be ready.
func (s *Spawner) Start(cmd *exec.Cmd) error {
	w := spawn{cmd, make(chan error, 1)}
	select {
	case s.work <- w:
		return <-w.done
	case <-s.gone:
		return errors.New("start process: the spawner has ended")
	}
}

// Run makes the cgroup and serves Start until ctx ends, when it removes the
// cgroup if that is empty. It is to be called once.
func (s *Spawner) Run(ctx context.Context) error {
	defer close(s.gone)
	if err := s.tree.Make(s.path); err != nil {
		return err
	}
	defer s.tree.Release(s.path)
	// On v1 the thread is in another cgroup than the rest of the process, so it
	// has to end with this.
	return osthread.Run(func() error { return s.serve(ctx) })
}

func (s *Spawner) serve(ctx context.Context) error {
	start := func(cmd *exec.Cmd) error { return cmd.Start() }
	if s.tree.v2 {
		dir, err := os.OpenFile(s.tree.Dir("", s.path), unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return fmt.Errorf("open cgroup %s: %w", s.path, err)
		}
		defer dir.Close()
		start = func(cmd *exec.Cmd) error {
			if cmd.SysProcAttr == nil {
				cmd.SysProcAttr = &syscall.SysProcAttr{}
			}
			cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
			return cmd.Start()
		}
	} else if err := s.enter(); err != nil {
		return err
	} else {
		defer s.leave()
	}
	for {
		select {
		case w := <-s.work:
			w.done <- start(w.cmd)
		case <-ctx.Done():
			return nil
		}
	}
}

// enter moves the calling thread, and only it, into the v1 cgroup. On a v2
// hierarchy that is not possible; beside v1 it limits nothing of a monitor.
func (s *Spawner) enter() error {
	for _, root := range s.tree.roots {
		if root == s.tree.hierarchies[hybrid] {
			continue
		}
		if err := moveThread(filepath.Join(root, s.path)); err != nil {
			return fmt.Errorf("enter cgroup %s: %w", s.path, err)
		}
	}
	return nil
}

// leave moves the thread out again, so that the cgroup can be removed at once
// and not only when the thread is gone.
func (s *Spawner) leave() {
	for _, root := range s.tree.roots {
		_ = moveThread(root)
	}
}

func moveThread(dir string) error {
	return os.WriteFile(filepath.Join(dir, "tasks"), []byte(strconv.Itoa(unix.Gettid())), 0)
}

package conmon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/wire"
	"github.com/criserver/criserver/internal/proc"
)

// giveUpTime is what a monitor gets to undo a half-made container. The monitor
// gives the OCI runtime's delete, and the children that are left, less than that.
const giveUpTime = 90 * time.Second

// Starter starts a process where monitors belong, which is a cgroup of their
// own, never the container's.
type Starter interface {
	Start(cmd *exec.Cmd) error
}

// Watcher tells of the end of a process, as [proc.Watcher] does.
type Watcher interface {
	Watch(r proc.Ref, ended func(pidfd *os.File)) error
}

// Launcher starts monitors.
type Launcher struct {
	// Path is the monitor's binary.
	Path string
	// Starter starts it.
	Starter Starter
	// Watcher lets the launcher reap each monitor when it has ended; no
	// goroutine and no thread waits for it until then.
	Watcher Watcher
}

// CommandLine is that of the monitor of a container. It is how a monitor is
// found whose daemon died before it could record the process.
func CommandLine(id string) []string { return []string{"conmon", "monitor", id} }

// Create starts a monitor for spec and waits until the OCI runtime's create is
// done. It returns what the monitor made and the monitor itself.
//
// When ctx ends first the monitor is told to give up: it ends the runtime,
// deletes the half-made container and leaves, and only then does Create return,
// with the error of ctx. When Create fails nothing is left but files in the run
// directory. An answer that arrives as ctx ends counts as an answer.
func (l *Launcher) Create(ctx context.Context, spec Spec) (Started, proc.Ref, error) {
	if err := ctx.Err(); err != nil {
		return Started{}, proc.Ref{}, fmt.Errorf("create container %q: %w", spec.ID, err)
	}
	m, err := l.start(spec)
	if err != nil {
		return Started{}, proc.Ref{}, fmt.Errorf("create container %q: start monitor: %w", spec.ID, err)
	}
	started, err := m.answer(ctx)
	// From the closing of its pipe the monitor learns that it was heard, or,
	// if it was not, that it must undo.
	err = errors.Join(err, m.pipe.Close())
	if err == nil && started.Error == "" {
		return started, m.ref, nil
	}
	if err == nil {
		err = errors.New(started.Error)
	}
	return Started{}, proc.Ref{}, fmt.Errorf("create container %q: %w", spec.ID, errors.Join(err, m.wait()))
}

// monitorProcess is a monitor on its way to an answer.
type monitorProcess struct {
	ref   proc.Ref
	kill  func() error
	pipe  *os.File      // where the answer comes
	ended chan struct{} // closed when it was reaped
}

func (l *Launcher) start(spec Spec) (*monitorProcess, error) {
	file, err := specFile(spec)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	cmd := exec.Command(l.Path)
	cmd.Args = CommandLine(spec.ID)
	cmd.Env = monitorEnv()
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{wire.SpecFD - 3: file, wire.StartedFD - 3: w}
	if err := l.Starter.Start(cmd); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	m := &monitorProcess{kill: cmd.Process.Kill, pipe: r, ended: make(chan struct{})}
	if err := m.watch(l.Watcher, cmd); err != nil {
		// Nobody would reap it, so it must not live.
		return nil, errors.Join(err, r.Close(), cmd.Process.Kill(), ignoreExit(cmd.Wait()))
	}
	return m, nil
}

func (m *monitorProcess) watch(w Watcher, cmd *exec.Cmd) (err error) {
	if m.ref, err = proc.Identify(cmd.Process.Pid); err != nil {
		return err
	}
	return w.Watch(m.ref, func(*os.File) {
		_ = cmd.Wait() // its status tells nothing that the records do not
		close(m.ended)
	})
}

func ignoreExit(err error) error {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil
	}
	return err
}

// answer reads what the monitor has to say. It says it in one write that a pipe
// does not split, so there is all of it or nothing.
func (m *monitorProcess) answer(ctx context.Context) (Started, error) {
	stop := context.AfterFunc(ctx, func() { _ = m.pipe.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	b := make([]byte, wire.MaxStarted)
	n, err := m.pipe.Read(b)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Started{}, context.Cause(ctx)
	case errors.Is(err, io.EOF):
		return Started{}, errors.New("the monitor died")
	case err != nil:
		return Started{}, fmt.Errorf("read monitor's answer: %w", err)
	}
	var s Started
	if err := json.Unmarshal(b[:n], &s); err != nil {
		return Started{}, fmt.Errorf("read monitor's answer: %w", err)
	}
	if s.Error == "" && s.Init.PID <= 0 {
		return Started{}, errors.New("read monitor's answer: no process in it")
	}
	return s, nil
}

// wait returns when the monitor, which has been told to, has gone.
func (m *monitorProcess) wait() error {
	timer := time.NewTimer(giveUpTime)
	defer timer.Stop()
	select {
	case <-m.ended:
		return nil
	case <-timer.C:
		return errors.Join(errors.New("the monitor did not undo the container in time"), m.kill())
	}
}

// specFile returns a file in memory that holds spec, at its beginning.
func specFile(spec Spec) (*os.File, error) {
	spec.Version = Version
	if spec.RuntimeEnv == nil {
		spec.RuntimeEnv = os.Environ()
	}
	b, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("spec", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "spec")
	// WriteAt leaves the offset, which the monitor shares, at 0.
	if _, err := f.WriteAt(b, 0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// monitorEnv is what the Go runtime of a monitor is set up by, and all of its
// environment. With one processor and no garbage collector, which it has no
// work for, it is 150 kB smaller; the limit is a net under that. Huge pages
// would make a two megabyte heap of a small one, and preemption, with nobody to
// preempt for, only costs signals.
func monitorEnv() []string {
	return []string{"GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=16MiB", "GODEBUG=disablethp=1,asyncpreemptoff=1"}
}

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
	"github.com/criserver/criserver/internal/steps"
)

// undoTimeout is how long Create waits for a monitor to delete the container after a failure.
// It is longer than the sum of the monitor's own limits for the runtime's delete and for the
// processes that are left after it.
const undoTimeout = 90 * time.Second

// Starter starts the command that a function returns in the cgroup of the monitors, and returns the command. The
// function is called again if the start must be repeated. A monitor must not be in the cgroup of its container.
type Starter interface {
	Start(command func() *exec.Cmd) (*exec.Cmd, error)
}

// Watcher calls a function when a process has exited, as [proc.Watcher] does.
type Watcher interface {
	Watch(r proc.Ref, ended func(pidfd *os.File)) error
}

// Launcher starts monitors.
type Launcher struct {
	// Path is the monitor's binary.
	Path string
	// Starter starts the monitor.
	Starter Starter
	// Watcher calls the launcher when a monitor has exited, so that the launcher can reap the
	// monitor. Until then no goroutine and no thread waits for the monitor.
	Watcher Watcher
}

// CommandLine returns the command line of a container's monitor. A restarted daemon uses it to
// find a monitor whose pid the earlier daemon did not record.
func CommandLine(id string) []string { return []string{"conmon", "monitor", id} }

// Create starts a monitor for spec and waits until the OCI runtime's create has ended. It
// returns the monitor's answer and the monitor's process.
//
// If ctx ends first, the monitor kills the runtime, deletes what the runtime has made, and
// exits. Create waits for that and returns the error of ctx. If Create fails, only files in the
// run directory are left. An answer that arrives while ctx ends counts as an answer.
func (l *Launcher) Create(ctx context.Context, spec Spec) (Started, proc.Ref, error) {
	if err := ctx.Err(); err != nil {
		return Started{}, proc.Ref{}, fmt.Errorf("create container %q: %w", spec.ID, err)
	}
	_, step := steps.Start(ctx, steps.MonitorStart)
	m, err := l.start(spec)
	if step.End(err); err != nil {
		return Started{}, proc.Ref{}, fmt.Errorf("create container %q: start monitor: %w", spec.ID, err)
	}
	_, step = steps.Start(ctx, steps.RuntimeCreate)
	started, err := m.answer(ctx)
	if err == nil && started.Error == "" && started.Init.PID <= 0 && spec.RestoreImages == "" {
		err = errors.New("read answer of monitor: it contains no process")
	}
	// When the pipe is closed, the monitor sees whether the daemon has read the answer. If not,
	// the monitor deletes the container.
	err = errors.Join(err, m.pipe.Close())
	if err == nil && started.Error != "" {
		err = errors.New(started.Error)
	}
	if step.End(err); err == nil {
		return started, m.ref, nil
	}
	return Started{}, proc.Ref{}, fmt.Errorf("create container %q: %w", spec.ID, errors.Join(err, m.wait()))
}

// pendingMonitor is a monitor that has not yet answered.
type pendingMonitor struct {
	ref    proc.Ref
	kill   func() error
	pipe   *os.File      // read end for the answer
	exited chan struct{} // closed after the monitor was reaped
}

// start starts the monitor process.
func (l *Launcher) start(spec Spec) (*pendingMonitor, error) {
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
	cmd, err := l.Starter.Start(func() *exec.Cmd {
		cmd := exec.Command(l.Path)
		cmd.Args = CommandLine(spec.ID)
		cmd.Env = monitorEnv()
		cmd.Dir = "/"
		cmd.ExtraFiles = []*os.File{wire.SpecFD - 3: file, wire.StartedFD - 3: w}
		return cmd
	})
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	m := &pendingMonitor{kill: cmd.Process.Kill, pipe: r, exited: make(chan struct{})}
	if err := m.watch(l.Watcher, cmd); err != nil {
		// Without the watcher, the daemon would not reap the monitor.
		return nil, errors.Join(err, r.Close(), cmd.Process.Kill(), ignoreExit(cmd.Wait()))
	}
	return m, nil
}

// watch reaps the monitor when it exits.
func (m *pendingMonitor) watch(w Watcher, cmd *exec.Cmd) (err error) {
	if m.ref, err = proc.Identify(cmd.Process.Pid); err != nil {
		return err
	}
	return w.Watch(m.ref, func(*os.File) {
		_ = cmd.Wait() // the exit status contains nothing that the records do not
		close(m.exited)
	})
}

// ignoreExit returns err unless err reports only an exit status.
func ignoreExit(err error) error {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil
	}
	return err
}

// answer reads the monitor's answer. The monitor writes at most PIPE_BUF bytes in one write, so
// a read returns the complete answer.
func (m *pendingMonitor) answer(ctx context.Context) (Started, error) {
	stop := context.AfterFunc(ctx, func() { _ = m.pipe.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	b := make([]byte, wire.MaxStarted)
	n, err := m.pipe.Read(b)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Started{}, context.Cause(ctx)
	case errors.Is(err, io.EOF):
		return Started{}, errors.New("the monitor exited without an answer")
	case err != nil:
		return Started{}, fmt.Errorf("read answer of monitor: %w", err)
	}
	var s Started
	if err := json.Unmarshal(b[:n], &s); err != nil {
		return Started{}, fmt.Errorf("read answer of monitor: %w", err)
	}
	return s, nil
}

// wait waits until the monitor has exited, after its pipe was closed.
func (m *pendingMonitor) wait() error {
	timer := time.NewTimer(undoTimeout)
	defer timer.Stop()
	select {
	case <-m.exited:
		return nil
	case <-timer.C:
		return errors.Join(errors.New("the monitor did not delete the container in time"), m.kill())
	}
}

// specFile returns an in-memory file that contains spec.
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
	// WriteAt does not move the file offset, which the monitor shares.
	if _, err := f.WriteAt(b, 0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// monitorEnv returns the environment of a monitor, which only configures the Go runtime. With
// one processor and without the garbage collector a monitor is 150 kB smaller. The memory limit
// is a safety net: near the limit the garbage collector runs. Transparent huge pages would turn
// a small heap into one of two megabytes. Asynchronous preemption only costs signals, because
// there is one goroutine.
func monitorEnv() []string {
	return []string{"GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=16MiB", "GODEBUG=disablethp=1,asyncpreemptoff=1"}
}

package oci

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const (
	// MaxExecOutput is what Exec keeps of each stream, in bytes; the CRI has
	// runtimes drop the rest. The answer to ExecSync can hold less of the two.
	MaxExecOutput = 16 << 20
	// drainFor bounds the wait for the end of output that a process left by the
	// command still holds open. What is in the pipe by then is read in any case.
	drainFor = 500 * time.Millisecond
)

// ExecInput is one command to run in a container.
type ExecInput struct {
	ID string
	// Process is the whole process, as in a config.
	Process *specs.Process
	Timeout time.Duration // 0 for none
	// Dir is a directory on tmpfs for files that live for a moment.
	Dir string
	// StdioUID and StdioGID are who on the host is the container's root, to whom
	// the command's pipes are given.
	StdioUID, StdioGID uint32
	// OOMScoreAdj is the oom_score_adj of the command. Nil leaves the value that the
	// runtime sets.
	OOMScoreAdj *int

	name string // of those files
}

// own gives the command's ends of its pipes to the container's root, who could
// else not open /dev/stdout.
func (in ExecInput) own(stdio [3]*os.File) error {
	if in.StdioUID == 0 && in.StdioGID == 0 {
		return nil
	}
	for _, f := range stdio {
		if f == nil {
			continue
		}
		if err := f.Chown(int(in.StdioUID), int(in.StdioGID)); err != nil {
			return err
		}
	}
	return nil
}

// ExecOutput is how it ended.
type ExecOutput struct {
	Stdout, Stderr []byte // the first MaxExecOutput bytes of each
	ExitCode       int32  // 128 plus the number for a death by signal
}

// Exec runs a command in a container and waits for its end. When the timeout
// passes, the command is killed with all its descendants, and the error is
// context.DeadlineExceeded. What left the command's session is not followed.
//
// The runtime only starts the command and leaves: then no runtime copies the
// output, waits for grandchildren that hold it open, or takes memory while the
// command runs. The calling process has to be the adopter of orphans for that:
// see AdoptOrphans.
func (r *Runtime) Exec(ctx context.Context, in ExecInput) (ExecOutput, error) {
	if in.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, in.Timeout)
		defer cancel()
	}
	in.name = "exec-" + rand.Text()
	defer r.swept(in)
	out, err := newExecStreams()
	if err != nil {
		return ExecOutput{}, fmt.Errorf("%s exec: %w", r.base(), err)
	}
	defer out.close()
	pid, log, err := r.execStart(ctx, in, [3]*os.File{1: out.writers[0], 2: out.writers[1]})
	out.started()
	if err != nil {
		out.drain()
		err = r.failed(ctx, "exec", err, log, out.stderr.data)
	} else {
		var status syscall.WaitStatus
		if status, err = await(ctx, pid, r.ender(in, pid)); err == nil {
			out.drain()
			return ExecOutput{Stdout: out.stdout.data, Stderr: out.stderr.data, ExitCode: statusCode(status)}, nil
		}
	}
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded) && in.Timeout > 0 {
		return ExecOutput{}, fmt.Errorf("command timed out after %s: %w", in.Timeout, context.DeadlineExceeded)
	}
	return ExecOutput{}, err
}

// execStart has the runtime start the command with these as its streams, nil
// ones being empty, and returns its pid, or how the runtime failed.
func (r *Runtime) execStart(ctx context.Context, in ExecInput, stdio [3]*os.File, options ...string) (pid int, log []byte, err error) {
	process, err := json.Marshal(in.Process)
	if err == nil {
		err = in.own(stdio)
	}
	if err != nil {
		return 0, nil, err
	}
	files, logAt, handed, err := r.execFiles(in, process)
	if err != nil {
		return 0, nil, err
	}
	defer closeAll(files)
	pidFile := in.file("")
	defer func() { _ = os.Remove(pidFile) }() // a runtime that failed wrote none
	args := append([]string{"exec", "--detach", "--pid-file", pidFile}, append(handed, options...)...)
	cmd := r.command(ctx, files, logAt, append(args, in.ID))
	setStdio(cmd, stdio)
	// By its session and group the command's processes are found again when
	// their parents have gone; runc makes new ones for it, crun does not.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return killDescendants(cmd.Process) }
	cmd.WaitDelay = waitAfter
	err = cmd.Run()
	pid, pidErr := readPID(pidFile)
	if pidErr == nil && (err == nil || ctx.Err() != nil) {
		in.adjustOOMScore(pid)
		return pid, nil, nil // also what was started just as ctx ended: it is to be ended
	}
	if err == nil {
		err = pidErr
	}
	if cmd.Process != nil {
		killGroup(cmd.Process.Pid)
		r.reapFailedExec()
	}
	return 0, readLog(files[0]), err
}

// setStdio keeps nil files from becoming interfaces that are not nil.
func setStdio(cmd *exec.Cmd, stdio [3]*os.File) {
	if f := stdio[0]; f != nil {
		cmd.Stdin = f
	}
	if f := stdio[1]; f != nil {
		cmd.Stdout = f
	}
	if f := stdio[2]; f != nil {
		cmd.Stderr = f
	}
}

// adjustOOMScore is about a child of this process that nobody has waited for, so
// that the pid is its own. One that has ended needs no score, and one that may
// not have it goes without.
func (in ExecInput) adjustOOMScore(pid int) {
	if in.OOMScoreAdj != nil {
		_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte(strconv.Itoa(*in.OOMScoreAdj)), 0)
	}
}

func readPID(file string) (int, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(b)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("pid file says %q", clean(b))
	}
	return pid, nil
}

// await reaps the adopted command; when ctx ends first, end is called, which is
// to kill it. Until it is reaped its pid can be nobody else's.
func await(ctx context.Context, pid int, end func()) (syscall.WaitStatus, error) {
	p, err := os.FindProcess(pid)
	if err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, end)
	state, err := p.Wait()
	if !stop() && ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("wait for the command: %w", err)
	}
	status, ok := state.Sys().(syscall.WaitStatus)
	if !ok {
		return 0, errors.New("wait for the command: no status")
	}
	return status, nil
}

func statusCode(s syscall.WaitStatus) int32 {
	if s.Signaled() {
		return 128 + int32(s.Signal())
	}
	return int32(s.ExitStatus())
}

// execStreams are the pipes of one command and what came out of them.
type execStreams struct {
	stdout, stderr bounded
	readers        [2]*os.File
	writers        [2]*os.File
	copies         sync.WaitGroup
}

func newExecStreams() (*execStreams, error) {
	s := &execStreams{stdout: bounded{limit: MaxExecOutput}, stderr: bounded{limit: MaxExecOutput}}
	for i, b := range []*bounded{&s.stdout, &s.stderr} {
		r, w, err := os.Pipe()
		if err != nil {
			s.close()
			return nil, err
		}
		s.readers[i], s.writers[i] = r, w
		s.copies.Go(func() { collect(b, r) })
	}
	return s, nil
}

// started closes the ends that the command has got by now.
func (s *execStreams) started() {
	for i, w := range s.writers {
		if w != nil {
			_ = w.Close()
			s.writers[i] = nil
		}
	}
}

// collect reads a stream until the pipe ends or drain has set a deadline that
// passes. It reads then what the command has written before its end: a goroutine
// that had no CPU until the deadline would lose it otherwise.
func collect(b *bounded, r *os.File) {
	if _, err := b.ReadFrom(r); errors.Is(err, os.ErrDeadlineExceeded) {
		_ = output{r, b}.rest(make([]byte, copySize)) // b takes everything
	}
}

// drain waits for the end of the output, but no longer than drainFor.
func (s *execStreams) drain() {
	for _, r := range s.readers {
		_ = r.SetReadDeadline(time.Now().Add(drainFor))
	}
	s.copies.Wait()
}

func (s *execStreams) close() {
	s.started()
	for _, r := range s.readers {
		if r != nil {
			_ = r.Close()
		}
	}
	s.copies.Wait()
}

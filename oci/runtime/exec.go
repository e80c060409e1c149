package runtime

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
	"syscall"
	"time"

	"github.com/criserver/criserver/internal/steps"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const (
	// MaxExecOutput is the number of bytes that Exec keeps of each stream. The CRI requires
	// runtimes to discard the rest. The answer to ExecSync may contain less of both.
	MaxExecOutput = 16 << 20
	// drainTimeout limits the wait for the end of output that another process holds open after
	// the command has exited. Exec always returns what is in the pipe by then.
	drainTimeout = 500 * time.Millisecond
)

// ExecInput describes a command to run in a container.
type ExecInput struct {
	ID string
	// Process is the complete process, as in a config.
	Process *specs.Process
	Timeout time.Duration // 0 for none
	// Dir is a directory on tmpfs for short-lived files.
	Dir string
	// StdioUID and StdioGID are the host ids of the container's root user, who becomes the
	// owner of the command's pipes.
	StdioUID, StdioGID uint32
	// OOMScoreAdj is the oom_score_adj of the command. With nil, the command keeps the value
	// that the runtime sets.
	OOMScoreAdj *int

	name string // prefix of the names of these files
}

// chownPipes makes the root user of the container the owner of the command's ends of the pipes.
// Otherwise that user could not open /dev/stdout.
func (in ExecInput) chownPipes(stdio [3]*os.File) error {
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

// ExecOutput is the result of a command.
type ExecOutput struct {
	Stdout, Stderr []byte // the first MaxExecOutput bytes of each
	ExitCode       int32  // 128 plus the signal number if a signal ended the command
}

// Exec runs a command in a container and waits until the command exits. After the timeout, Exec
// kills the command with all descendants and returns context.DeadlineExceeded. It does not find
// descendants that have left the command's session and whose parents have exited.
//
// The runtime only starts the command and exits. So no runtime process copies the output, waits
// for grandchildren that hold the output open, or takes memory while the command runs. The
// calling process must be a subreaper: see AdoptOrphans.
func (r *Runtime) Exec(ctx context.Context, in ExecInput) (ExecOutput, error) {
	if in.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, in.Timeout)
		defer cancel()
	}
	in.name = "exec-" + rand.Text()
	defer r.removeExecFiles(in)
	out, err := newExecStreams()
	if err != nil {
		return ExecOutput{}, fmt.Errorf("%s exec: %w", r.base(), err)
	}
	defer out.close()
	pid, log, err := r.execStart(ctx, in, [3]*os.File{1: out.writers[0], 2: out.writers[1]})
	out.closeWriters()
	if err != nil {
		out.drain()
		err = r.commandError(ctx, "exec", err, log, out.stderr.data)
	} else {
		var status syscall.WaitStatus
		if status, err = waitForCommand(ctx, pid, r.killFunc(in, pid)); err == nil {
			out.drain()
			return ExecOutput{Stdout: out.stdout.data, Stderr: out.stderr.data, ExitCode: statusCode(status)}, nil
		}
	}
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded) && in.Timeout > 0 {
		return ExecOutput{}, fmt.Errorf("command timed out after %s: %w", in.Timeout, context.DeadlineExceeded)
	}
	return ExecOutput{}, err
}

// execStart makes the runtime start the command with the files in stdio. A nil file means
// /dev/null. It returns the pid of the command, or the log and the error of the runtime.
func (r *Runtime) execStart(ctx context.Context, in ExecInput, stdio [3]*os.File, options ...string) (pid int, log []byte, err error) {
	ctx, step := steps.Start(ctx, steps.RuntimeCall, steps.Command("exec"))
	defer step.EndWith(&err)
	process, err := json.Marshal(in.Process)
	if err == nil {
		err = in.chownPipes(stdio)
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
	defer func() { _ = os.Remove(pidFile) }() // a failed runtime has not written the file
	args := append([]string{"exec", "--detach", "--pid-file", pidFile}, append(handed, options...)...)
	cmd := r.command(ctx, files, logAt, append(args, in.ID))
	setStdio(cmd, stdio)
	// The command's processes are found by session and process group if their parents have
	// exited. runc makes a new session for the command; crun does not.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return killDescendants(cmd.Process) }
	cmd.WaitDelay = outputTimeout
	err = cmd.Run()
	pid, pidErr := readPID(pidFile)
	if pidErr == nil && (err == nil || ctx.Err() != nil) {
		in.adjustOOMScore(pid)
		return pid, nil, nil // also a command that was started while ctx ended; the caller will kill it
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

// setStdio sets the stdio of cmd. A nil *os.File must not become a non-nil interface.
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

// adjustOOMScore sets the oom_score_adj of a child. The caller has not waited for the child, so the
// pid is still valid. It ignores errors: the command may have exited, or the daemon may not be allowed
// to set the value.
func (in ExecInput) adjustOOMScore(pid int) {
	if in.OOMScoreAdj != nil {
		_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte(strconv.Itoa(*in.OOMScoreAdj)), 0)
	}
}

// readPID reads a pid file.
func readPID(file string) (int, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(b)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("pid file contains %q", sanitize(b))
	}
	return pid, nil
}

// waitForCommand waits for an adopted command and returns its status. If ctx ends first, waitForCommand
// calls kill, waits until both have ended, and returns the cause: kill may end the command before its
// descendants. The pid stays valid until the command is reaped.
func waitForCommand(ctx context.Context, pid int, kill func()) (syscall.WaitStatus, error) {
	p, err := os.FindProcess(pid)
	if err != nil {
		return 0, err
	}
	killed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(killed)
		kill()
	})
	state, err := p.Wait()
	if !stop() {
		<-killed
		return 0, context.Cause(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("wait for command: %w", err)
	}
	status, ok := state.Sys().(syscall.WaitStatus)
	if !ok {
		return 0, errors.New("wait for command: no wait status")
	}
	return status, nil
}

// statusCode returns the exit code for a wait status.
func statusCode(s syscall.WaitStatus) int32 {
	if s.Signaled() {
		return 128 + int32(s.Signal())
	}
	return int32(s.ExitStatus())
}

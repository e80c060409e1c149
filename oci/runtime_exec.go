package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const (
	// MaxExecOutput is what ExecSync keeps of each stream, in bytes; the CRI
	// has runtimes drop the rest.
	MaxExecOutput = 16 << 20
	// drainFor bounds the wait for the end of output that a left-behind
	// grandchild still holds open.
	drainFor = 500 * time.Millisecond
)

// ExecInput is one command to run in a container.
type ExecInput struct {
	ID string
	// Process is the whole process, as in a config.
	Process *specs.Process
	Timeout time.Duration // 0 for none
}

// ExecOutput is how it ended.
type ExecOutput struct {
	Stdout, Stderr []byte // the first MaxExecOutput bytes of each
	ExitCode       int32
}

// Exec runs a command in a container and waits for its end. When the timeout
// passes, the command is killed with all its descendants, and the error is
// context.DeadlineExceeded. What left the command's session is not followed.
func (r *Runtime) Exec(ctx context.Context, in ExecInput) (ExecOutput, error) {
	process, err := json.Marshal(in.Process)
	if err != nil {
		return ExecOutput{}, err
	}
	files, err := r.files(process)
	if err != nil {
		return ExecOutput{}, err
	}
	defer closeAll(files)
	if in.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, in.Timeout)
		defer cancel()
	}
	cmd := r.command(ctx, files, []string{"exec", "--process", inputPath, in.ID})
	stdout, stderr := &bounded{limit: MaxExecOutput}, &bounded{limit: MaxExecOutput}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	// The runtime ends by itself when its child has; WaitDelay ends it if not.
	cmd.Cancel = func() error { return killDescendants(cmd.Process.Pid) }
	cmd.WaitDelay = drainFor
	if err := cmd.Start(); err != nil {
		return ExecOutput{}, fmt.Errorf("%s exec: %w", r.base(), err)
	}
	err = cmd.Wait()
	if ctx.Err() != nil {
		return ExecOutput{}, r.interrupted(ctx, in.Timeout)
	}
	return r.execEnded(ctx, err, files[0], stdout, stderr)
}

// interrupted reports a timeout in the words by which kubelets know it.
func (r *Runtime) interrupted(ctx context.Context, timeout time.Duration) error {
	err := context.Cause(ctx)
	if errors.Is(err, context.DeadlineExceeded) && timeout > 0 {
		return fmt.Errorf("command timed out after %s: %w", timeout, err)
	}
	return err
}

func (r *Runtime) execEnded(ctx context.Context, err error, log *os.File, stdout, stderr *bounded) (ExecOutput, error) {
	out := ExecOutput{Stdout: stdout.data, Stderr: stderr.data}
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return out, nil
	case !errors.As(err, &exit):
		return ExecOutput{}, fmt.Errorf("%s exec: %w", r.base(), err)
	}
	// A log with an error is the runtime's own failure; a command that merely
	// exits non-zero leaves none.
	if b := readLog(log); LogError(b) != "" || !exit.Exited() {
		return ExecOutput{}, r.failed(ctx, "exec", err, b, stderr.data)
	}
	out.ExitCode = int32(exit.ExitCode())
	return out, nil
}

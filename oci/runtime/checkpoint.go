package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/criserver/criserver/internal/steps"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"
)

// Checkpoint is the input of the dump of a container.
type Checkpoint struct {
	// ImageDir is an existing directory for the CRIU images. WorkDir is an existing directory for the log and the
	// statistics of CRIU.
	ImageDir, WorkDir string
	// CRIU is the path of the criu program. The base name must be "criu", because runtimes search the PATH for "criu".
	CRIU string
	// Mark is the value of MarkVariable in the environment of the runtime and of CRIU. A later daemon finds the
	// processes by the Mark.
	Mark string
}

// MarkVariable is the environment variable with the Mark of a Checkpoint.
const MarkVariable = "CRISERVER_CHECKPOINT"

// DumpLog is the name of the log file of CRIU in the WorkDir.
const DumpLog = "dump.log"

// abortTimeout is how long CRIU may take to clean up after an aborted dump. After this time CRIU is killed.
const abortTimeout = 20 * time.Second

// abortPause is the time between two removals of the ImageDir of an aborted dump.
const abortPause = 10 * time.Millisecond

// CanCheckpoint reports whether a runtime with these features can checkpoint containers. Runtimes without the features
// command have nil features and cannot.
func CanCheckpoint(f *features.Features) bool {
	if f == nil {
		return false
	}
	return f.Annotations["org.opencontainers.runc.checkpoint.enabled"] == "true" ||
		f.Annotations["run.oci.crun.checkpoint.enabled"] == "true"
}

// Dump writes the CRIU images of the processes of a container. The dump does not end the processes, and a frozen cgroup
// stays frozen.
//
// If ctx ends, Dump does not kill CRIU at once, because CRIU has changed registers and memory of the processes of the
// container, and must undo the changes. Dump removes the ImageDir instead. CRIU then fails to create the next file,
// and undoes the changes.
func (r *Runtime) Dump(ctx context.Context, id string, c Checkpoint) (err error) {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	_, step := steps.Start(ctx, steps.RuntimeCall, steps.Command("checkpoint"))
	defer step.EndWith(&err)
	files, err := r.files(nil)
	if err != nil {
		return err
	}
	defer closeAll(files)
	args := []string{
		"checkpoint", "--leave-running", "--file-locks", "--image-path", c.ImageDir, "--work-path", c.WorkDir, id,
	}
	cmd := r.command(context.WithoutCancel(ctx), files, logPath, args)
	stderr := &limitedBuffer{limit: maxLog}
	cmd.Stderr, cmd.WaitDelay = stderr, outputTimeout
	cmd.Env = c.environment(os.Environ())
	// The runtime and CRIU get a process group, so that endGroup can wait for both.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return r.commandError(ctx, args[0], err, nil, nil)
	}
	err = c.wait(ctx, cmd)
	if ctx.Err() == nil && err == nil {
		return nil
	}
	if ctx.Err() != nil {
		// The images may be incomplete even if the dump ended without an error.
		return fmt.Errorf("%s checkpoint: %w", r.base(), context.Cause(ctx))
	}
	err = r.commandError(ctx, args[0], err, readLog(files[0]), stderr.data)
	if reason := CRIUError(filepath.Join(c.WorkDir, DumpLog)); reason != "" {
		err = fmt.Errorf("%s: %w", reason, err)
	}
	return err
}

// environment returns the environment of the runtime, with the directory of CRIU at the start of the PATH.
func (c *Checkpoint) environment(env []string) []string {
	dir, path := filepath.Dir(c.CRIU), ""
	env = slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		value, ok := strings.CutPrefix(v, "PATH=")
		if ok {
			path = value
		}
		return ok
	})
	// CRIU runs tar, ip and iptables.
	path = cmp.Or(path, "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	return append(env, "PATH="+dir+":"+path, MarkVariable+"="+c.Mark)
}

// wait waits until the runtime and CRIU have exited. It aborts the dump when ctx ends.
func (c *Checkpoint) wait(ctx context.Context, cmd *exec.Cmd) error {
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	group := cmd.Process.Pid
	var err error
	select {
	case err = <-exited:
	case <-ctx.Done():
		err = c.abort(group, exited)
	}
	return errors.Join(err, endGroup(group))
}

// abort removes the ImageDir and waits until the runtime has exited. It kills the group after abortTimeout.
func (c *Checkpoint) abort(group int, exited <-chan error) error {
	kill := time.NewTimer(abortTimeout)
	defer kill.Stop()
	tick := time.NewTicker(abortPause)
	defer tick.Stop()
	for {
		// The removal fails if CRIU creates a file during the removal. The caller removes the remaining files.
		_ = os.RemoveAll(c.ImageDir)
		select {
		case err := <-exited:
			return err
		case <-kill.C:
			_ = unix.Kill(-group, unix.SIGKILL)
		case <-tick.C:
		}
	}
}

// endGroup waits until the process group is empty, and kills the group after abortTimeout. If the runtime was killed,
// CRIU continues until CRIU cannot report to the runtime. The caller must have waited for the runtime.
func endGroup(group int) error {
	for deadline := time.Now().Add(abortTimeout); ; time.Sleep(time.Millisecond) {
		// The container stays frozen during the wait, so endGroup does not leave the zombies of CRIU to ReapOrphans.
		_, _ = unix.Wait4(-group, nil, unix.WNOHANG, nil)
		if err := unix.Kill(-group, 0); errors.Is(err, unix.ESRCH) {
			return nil
		}
		if time.Now().After(deadline) {
			break
		}
	}
	if err := unix.Kill(-group, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill CRIU: %w", err)
	}
	return errors.New("CRIU did not end and was killed")
}

// maxCRIULog is the maximum size in bytes of the end of a CRIU log that CRIUError reads.
const maxCRIULog = 256 << 10

// harmlessErrors are parts of CRIU errors after which the dump continues.
var harmlessErrors = []string{"Can't setup RLIMIT_NOFILE"}

// CRIUError returns the first error in the last maxCRIULog bytes of a CRIU log, or "". The error has one line of
// limited length. An incomplete line is not an error: CRIU could not write the rest of it, because the disk was full.
func CRIUError(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	b := make([]byte, min(info.Size(), maxCRIULog))
	n, _ := f.ReadAt(b, info.Size()-int64(len(b)))
	for line := range strings.Lines(string(b[:n])) {
		_, text, ok := strings.Cut(line, " Error (")
		harmless := slices.ContainsFunc(harmlessErrors, func(h string) bool { return strings.Contains(text, h) })
		if ok && !harmless && strings.HasSuffix(text, "\n") {
			return sanitize([]byte("criu: Error (" + text))
		}
	}
	return ""
}

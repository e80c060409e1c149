// Package criu finds the program criu, which dumps processes, and checks whether criu works on this kernel.
package criu

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
)

// checkTimeout limits the check of the program. A check that reaches the limit has no result.
const checkTimeout = time.Minute

// pipeTimeout limits how long check waits for the end of the output after criu has exited or was killed.
const pipeTimeout = time.Second

// maxMessage is the maximum length of a message of criu in an error, in bytes.
const maxMessage = 300

// Program is a criu program that works on this kernel.
type Program struct {
	Path    string
	Version string
}

// Checker finds and checks the program. Checker keeps the result of a check until the program changes.
type Checker struct {
	// Configured returns the path of the program, or "" for the first criu in the PATH.
	Configured func() string

	timeout time.Duration // of a check; 0 for checkTimeout

	run sync.Mutex // held by Check, so that one check runs at a time

	mu     sync.Mutex // guards the fields below; taken after run
	last   *result    // of the last program, or nil
	failed error      // the reason why the last Check has no result, or nil
}

// result is the result of a check.
type result struct {
	program Program
	err     error
	modTime time.Time
	size    int64
}

// Check returns the program, or an ErrNotImplemented with the reason why checkpoints are not possible. If the program
// does not end in time, Check returns an ErrUnavailable, and the next call runs the program again. Otherwise Check runs
// the program only if the program has changed since the last call.
func (c *Checker) Check(ctx context.Context) (Program, error) {
	c.run.Lock()
	defer c.run.Unlock()
	path, info, err := c.find()
	c.mu.Lock()
	last := c.last
	c.failed = err
	c.mu.Unlock()
	if err != nil {
		return Program{}, err
	}
	if last != nil && last.program.Path == path && last.modTime.Equal(info.ModTime()) && last.size == info.Size() {
		return last.program, last.err
	}
	r := &result{program: Program{Path: path}, modTime: info.ModTime(), size: info.Size()}
	checkCtx, cancel := context.WithTimeout(ctx, cmp.Or(c.timeout, checkTimeout))
	defer cancel()
	r.program.Version, r.err = check(checkCtx, path)
	if ctx.Err() != nil {
		return Program{}, context.Cause(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.err != nil && checkCtx.Err() != nil {
		c.failed = fmt.Errorf("the check of %s has not ended in time: %w", path, errdefs.ErrUnavailable)
		return Program{}, c.failed
	}
	c.last = r
	return r.program, r.err
}

// Last returns the result of the last Check. Before the first Check, and after a Check that has not ended in time, Last
// returns an ErrUnavailable.
func (c *Checker) Last() (Program, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.failed != nil:
		return Program{}, c.failed
	case c.last == nil:
		return Program{}, fmt.Errorf("criu has not been checked: %w", errdefs.ErrUnavailable)
	}
	return c.last.program, c.last.err
}

// find returns the path of the program, and the properties by which Check recognizes a change.
func (c *Checker) find() (string, os.FileInfo, error) {
	path := c.Configured()
	if path == "" {
		var err error
		if path, err = exec.LookPath("criu"); err != nil {
			return "", nil, fmt.Errorf("no criu is in the PATH of the daemon: %w", errdefs.ErrNotImplemented)
		}
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", nil, fmt.Errorf("criu: %w: %w", err, errdefs.ErrNotImplemented)
	}
	return path, info, nil
}

// check returns the version of a program, and an ErrNotImplemented if the program does not work on this kernel.
func check(ctx context.Context, path string) (version string, err error) {
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w: %w", path, err, errdefs.ErrNotImplemented)
	}
	version = parseVersion(out)
	if version == "" {
		return "", fmt.Errorf("%s --version: no version in the output: %w", path, errdefs.ErrNotImplemented)
	}
	cmd := exec.CommandContext(ctx, path, "check")
	// Processes that criu starts for the check inherit its output. Wait returns when they have ended, so Cancel kills
	// them, too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = pipeTimeout
	out, err = cmd.CombinedOutput()
	if errors.Is(err, exec.ErrWaitDelay) {
		_ = cmd.Cancel() // the check has succeeded, but a process that criu started keeps the output open
		err = nil
	}
	if err != nil {
		return version, fmt.Errorf("criu %s does not work on this kernel: %s: %w: %w", version, lastError(out), err, errdefs.ErrNotImplemented)
	}
	return version, nil
}

// parseVersion returns the version in the output of "criu --version", or "".
func parseVersion(out []byte) string {
	for line := range strings.Lines(string(out)) {
		if v, ok := strings.CutPrefix(line, "Version:"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// lastError returns the last error in the output of criu. Without an error, lastError returns the first line.
func lastError(out []byte) string {
	last := ""
	for line := range bytes.Lines(out) {
		text := strings.ToValidUTF8(string(bytes.TrimSpace(line)), "")
		if _, message, ok := strings.Cut(text, "Error "); ok {
			last = message
		} else if last == "" && text != "" {
			last = text
		}
	}
	return last[:min(len(last), maxMessage)]
}

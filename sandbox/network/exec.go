package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/criserver/criserver/internal/oplock"
	"github.com/criserver/criserver/sandbox/network/bridge"
)

const (
	maxOutput = 1 << 20 // bytes taken from each stream of a plugin
	maxQuote  = 2 << 10 // bytes of them put in an error
	// killWait is how long the children of an ended plugin may keep its pipes.
	killWait = 5 * time.Second
)

// tuned makes plugins that are written in Go cheaper, as nearly all are: they
// live for milliseconds, and a seventh of their CPU time goes into waking
// threads for one another.
var tuned = []string{"GOMAXPROCS=1"}

// runner executes plugins. Other than libcni's own it ends the children of a
// plugin with it, bounds what it reads and puts none of it on our stderr. What
// is built in is done without a process.
type runner struct {
	version.PluginDecoder
	builtin bool
	bridge  bridge.Plugin
	turns   oplock.Locks // by plugin, of those that take turns
}

// takesTurns names a plugin of which two at a time fail each other: both find
// that a chain of theirs is missing, and only one can make it. They would wait
// for the lock of iptables anyway.
const takesTurns = "portmap"

// FindInPath finds a plugin's binary.
func (*runner) FindInPath(plugin string, paths []string) (string, error) {
	return invoke.FindInPath(plugin, paths)
}

// ExecPlugin runs a plugin and returns what it wrote to stdout.
func (r *runner) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	if r.builtin && filepath.Base(path) == "bridge" {
		out, mine, err := r.bridge.Run(ctx, callOf(stdin, environ))
		if mine {
			return out, err
		}
	}
	if name := filepath.Base(path); name == takesTurns {
		done, err := r.turns.Lock(ctx, name)
		if err != nil {
			return nil, err
		}
		defer done()
	}
	return execute(ctx, path, stdin, environ)
}

// callOf reads the variables of the CNI specification, of which libcni puts the
// valid ones behind those of the daemon.
func callOf(stdin []byte, environ []string) bridge.Call {
	c := bridge.Call{Stdin: stdin}
	to := map[string]*string{
		"CNI_COMMAND": &c.Command, "CNI_CONTAINERID": &c.ContainerID, "CNI_NETNS": &c.NetNS, "CNI_IFNAME": &c.IfName,
	}
	for _, e := range environ {
		if name, value, _ := strings.Cut(e, "="); to[name] != nil {
			*to[name] = value
		}
	}
	return c
}

func execute(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	var stdout, stderr bounded
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = append(environ, tuned...)
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := runTied(cmd)
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it succeeded, and left a child behind that keeps its pipes
	}
	if err == nil && stdout.dropped {
		err = fmt.Errorf("it wrote more than %d bytes", maxOutput)
	}
	if err == nil {
		return stdout.kept.Bytes(), nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s: %w", path, context.Cause(ctx))
	}
	return nil, pluginError(err, stdout.kept.Bytes(), stderr.kept.Bytes())
}

// runTied runs a command that neither outlives its context nor the daemon. The next
// daemon takes down a pod that was not made to the end, and a plugin of the earlier
// daemon that still runs would add to the network what nobody removes.
func runTied(cmd *exec.Cmd) error {
	// The process group includes the processes that the command starts.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killWait
	// The kernel sends Pdeathsig when the thread ends that started the command, and
	// other code of the daemon ends threads.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return cmd.Run()
}

// pluginError is the plugin's own error where it wrote one, as the CNI
// specification wants it, and else what there is.
func pluginError(err error, stdout, stderr []byte) error {
	var told types.Error
	if json.Unmarshal(stdout, &told) == nil && told.Msg != "" {
		return &told
	}
	if words := quote(stderr) + quote(stdout); words != "" {
		return fmt.Errorf("%w: %s", err, words)
	}
	return fmt.Errorf("%w, without a word", err)
}

func quote(b []byte) string {
	return strings.TrimSpace(string(b[:min(len(b), maxQuote)]))
}

// bounded keeps the first maxOutput bytes and drops the rest, as a plugin must
// not be blocked by its own chatter. The buffer is not embedded: io.Copy would
// fill it past the bound through its ReadFrom.
type bounded struct {
	kept    bytes.Buffer
	dropped bool
}

func (b *bounded) Write(p []byte) (int, error) {
	room := maxOutput - b.kept.Len()
	if len(p) > room {
		b.dropped = true
	}
	b.kept.Write(p[:min(len(p), room)])
	return len(p), nil
}

// code returns the number of a plugin's error, or 0.
func code(err error) uint {
	var told *types.Error
	if errors.As(err, &told) {
		return told.Code
	}
	return 0
}

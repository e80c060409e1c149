package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/criserver/criserver/internal/oplock"
	"github.com/criserver/criserver/internal/steps"
	"github.com/criserver/criserver/sandbox/network/bridge"
	"github.com/criserver/criserver/sandbox/network/program"
)

// pluginEnv has further environment variables for plugins. Nearly all plugins are written in Go and run for a few
// milliseconds. With several threads they spend a seventh of their CPU time on waking each other.
var pluginEnv = []string{"GOMAXPROCS=1"}

// runner executes plugins, or does the work of a plugin without a process. In contrast to the
// runner of libcni, it kills the children of a plugin together with the plugin, limits the output,
// and does not write to the stderr of the daemon.
type runner struct {
	version.PluginDecoder
	builtin bool
	bridge  bridge.Plugin
	locks   oplock.Locks // by name of a plugin that must not run concurrently
}

// serializedPlugin is the name of a plugin that must not run concurrently. Two processes both find
// that a chain is missing, and one of them fails to add the chain. They would wait for the lock of
// iptables anyway.
const serializedPlugin = "portmap"

// missingBinary is the directory in the path of a plugin without a binary whose work the daemon does itself.
const missingBinary = "built-in"

// builtinPlugin is the name of the plugin that package bridge replaces.
const builtinPlugin = "bridge"

// FindInPath returns the path of the binary of a plugin. The built-in bridge needs no binary, so the path of a missing
// binary is not an error before ExecPlugin has to execute the binary.
func (r *runner) FindInPath(plugin string, paths []string) (string, error) {
	path, err := invoke.FindInPath(plugin, paths)
	if err != nil && r.builtin && plugin == builtinPlugin {
		return filepath.Join(missingBinary, plugin), nil
	}
	return path, err
}

// ExecPlugin executes a plugin and returns its stdout.
func (r *runner) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) (_ []byte, err error) {
	ctx, step := steps.Start(ctx, steps.CNIPlugin, steps.Plugin(filepath.Base(path)), steps.Command(pluginCommand(environ)))
	defer step.EndWith(&err)
	if r.builtin && filepath.Base(path) == builtinPlugin {
		out, handled, err := r.bridge.Run(ctx, bridgeCall(stdin, environ))
		if handled {
			step.Add(steps.BuiltIn())
			return out, err
		}
	}
	if filepath.Dir(path) == missingBinary {
		return nil, fmt.Errorf("CNI plugin %q is not installed, and the network has an option that the daemon does not handle itself: %w",
			filepath.Base(path), errdefs.ErrUnavailable)
	}
	if name := filepath.Base(path); name == serializedPlugin {
		unlock, err := r.locks.Lock(ctx, name)
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	return execute(ctx, path, stdin, environ)
}

// bridgeCall reads the environment variables of the CNI specification. libcni appends them to the environment of the
// daemon, so the last value of a variable is valid.
func bridgeCall(stdin []byte, environ []string) bridge.Call {
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

// pluginCommand returns the command of the CNI specification, for example "ADD". libcni appends the variable at the
// end.
func pluginCommand(environ []string) string {
	for _, e := range slices.Backward(environ) {
		if command, ok := strings.CutPrefix(e, "CNI_COMMAND="); ok {
			return command
		}
	}
	return ""
}

// execute executes a plugin in a process.
func execute(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	var stdout, stderr program.Output
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = append(environ, pluginEnv...)
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := program.Run(cmd)
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // the plugin succeeded, but a child keeps the pipes open
	}
	if err == nil && stdout.Truncated() {
		err = fmt.Errorf("the plugin wrote more than %d bytes", program.MaxOutput)
	}
	if err == nil {
		return stdout.Bytes(), nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s: %w", path, context.Cause(ctx))
	}
	return nil, pluginError(err, stdout.Bytes(), stderr.Bytes())
}

// pluginError returns the error that the plugin has written to stdout, as the CNI specification
// requires. Without such an error it returns err with the output.
func pluginError(err error, stdout, stderr []byte) error {
	var fromPlugin types.Error
	if json.Unmarshal(stdout, &fromPlugin) == nil && fromPlugin.Msg != "" {
		return &fromPlugin
	}
	if output := program.Quote(stderr) + program.Quote(stdout); output != "" {
		return fmt.Errorf("%w: %s", err, output)
	}
	return fmt.Errorf("%w without output", err)
}

// code returns the code of the error of a plugin, or 0.
func code(err error) uint {
	var fromPlugin *types.Error
	if errors.As(err, &fromPlugin) {
		return fromPlugin.Code
	}
	return 0
}

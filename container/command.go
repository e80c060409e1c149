package container

import (
	"path"
	"slices"
	"strings"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// commandOf joins the request's and the image's by the rules of Kubernetes: the
// request's command stands for ENTRYPOINT, its args for CMD, and a command
// without args drops CMD too.
func commandOf(c *cri.ContainerConfig, image ispec.ImageConfig) []string {
	command, args := c.GetCommand(), c.GetArgs()
	if len(command) == 0 {
		command = image.Entrypoint
		if len(args) == 0 {
			args = image.Cmd
		}
	}
	out := make([]string, 0, len(command)+len(args))
	return append(append(out, command...), args...)
}

// envOf is the image's environment, overridden by the request's, and what every
// process expects to find where neither has it. Each name comes once.
func envOf(c *cri.ContainerConfig, image ispec.ImageConfig, hostname, home string) []string {
	e := environment{index: make(map[string]int)}
	for _, kv := range image.Env {
		if name, value, ok := strings.Cut(kv, "="); ok && name != "" {
			e.set(name, value)
		}
	}
	for _, kv := range c.GetEnvs() {
		e.set(kv.GetKey(), string(kv.GetValue()))
	}
	e.setDefault("PATH", defaultPath)
	e.setDefault("HOSTNAME", hostname)
	e.setDefault("HOME", home)
	if c.GetTty() {
		e.setDefault("TERM", "xterm")
	}
	return e.list
}

type environment struct {
	list  []string
	index map[string]int
}

func (e *environment) set(name, value string) {
	kv := name + "=" + value
	if i, ok := e.index[name]; ok {
		e.list[i] = kv
		return
	}
	e.index[name] = len(e.list)
	e.list = append(e.list, kv)
}

func (e *environment) setDefault(name, value string) {
	if _, ok := e.index[name]; !ok && value != "" {
		e.set(name, value)
	}
}

// workingDir is absolute and clean whatever the request or the image says.
func workingDir(c *cri.ContainerConfig, image ispec.ImageConfig) string {
	dir := c.GetWorkingDir()
	if dir == "" {
		dir = image.WorkingDir
	}
	return path.Clean("/" + dir)
}

// validateCommand holds what execve(2) takes: strings that end at a NUL, and a
// directory that means the same wherever the runtime stands.
func validateCommand(c *cri.ContainerConfig) error {
	for field, list := range map[string][]string{"command": c.GetCommand(), "args": c.GetArgs()} {
		if i := slices.IndexFunc(list, func(s string) bool { return strings.ContainsRune(s, 0) }); i >= 0 {
			return invalid("config.%s[%d] %q must not contain a NUL", field, i, list[i])
		}
	}
	if dir := c.GetWorkingDir(); dir != "" && (!path.IsAbs(dir) || strings.ContainsRune(dir, 0)) {
		return invalid("config.working_dir %q must be an absolute path", dir)
	}
	return nil
}

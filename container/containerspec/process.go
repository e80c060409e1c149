package containerspec

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/criserver/criserver/internal/rootpath"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// maxVolumes limits the volumes that an image declares, because each volume can need a
// mount.
const maxVolumes = 512

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Process is the first process of a container: the request joined with the config of
// the image.
type Process struct {
	Args []string
	// WorkingDir is absolute and clean.
	WorkingDir string
	User       User // its Account is set
	StopSignal unix.Signal
	// Volumes are the volumes that the image declares: absolute, clean and sorted.
	Volumes []string
	// Warnings say which parts of the image config are ignored.
	Warnings []string

	imageEnv []string
	env      []EnvVar
	terminal bool
}

// Process joins the spec with the config of the image. Errors are ErrInvalidArgument
// for an image config that cannot be used with this request.
func (s *Spec) Process(image ispec.ImageConfig) (*Process, error) {
	p := &Process{
		Args: s.args(image), WorkingDir: s.workingDir(image), StopSignal: s.StopSignal,
		imageEnv: image.Env, env: s.Command.Env, terminal: s.Stdio.Terminal,
	}
	if len(p.Args) == 0 {
		return nil, invalid("no command: neither the request nor the image has one")
	}
	if rootpath.TooLong(p.WorkingDir) {
		return nil, invalid("config.working_dir or the working directory of the image %s", rootpath.LengthRule)
	}
	var err error
	if p.User, err = s.User.withImage(image.User); err != nil {
		return nil, err
	}
	if p.Volumes, err = imageVolumes(image.Volumes); err != nil {
		return nil, err
	}
	if p.StopSignal == 0 {
		p.StopSignal = p.imageStopSignal(image.StopSignal)
	}
	return p, nil
}

// args follows the rules of Kubernetes: the command of the request replaces ENTRYPOINT,
// its args replace CMD, and a command without args drops CMD, too.
func (s *Spec) args(image ispec.ImageConfig) []string {
	command, args := s.Command.Command, s.Command.Args
	if len(command) == 0 {
		command = image.Entrypoint
		if len(args) == 0 {
			args = image.Cmd
		}
	}
	return slices.Concat(command, args)
}

// workingDir makes the working directory of the image absolute: images can have any
// text there.
func (s *Spec) workingDir(image ispec.ImageConfig) string {
	return cmp.Or(s.Command.WorkingDir, path.Clean("/"+image.WorkingDir))
}

// imageStopSignal returns STOPSIGNAL of the image, or SIGTERM. An unknown STOPSIGNAL
// does not prevent the creation of the container.
func (p *Process) imageStopSignal(name string) unix.Signal {
	if name == "" {
		return unix.SIGTERM
	}
	if sig, ok := parseSignal(name); ok {
		return sig
	}
	p.Warnings = append(p.Warnings, fmt.Sprintf("the stop signal %.64q of the image is unknown: use SIGTERM", name))
	return unix.SIGTERM
}

// imageVolumes ignores relative paths.
func imageVolumes(declared map[string]struct{}) ([]string, error) {
	if n := len(declared); n > maxVolumes {
		return nil, invalid("the image declares %d volumes, more than %d", n, maxVolumes)
	}
	var volumes []string
	for _, v := range slices.Sorted(maps.Keys(declared)) {
		if rootpath.TooLong(v) {
			return nil, invalid("volume %.64q… of the image %s", v, rootpath.LengthRule)
		}
		if filepath.IsAbs(v) {
			volumes = append(volumes, filepath.Clean(v))
		}
	}
	slices.Sort(volumes)
	return slices.Compact(volumes), nil
}

// Env returns the environment of the process: the variables of the request, of the image and of the operator, in
// this order of precedence, and defaults for the variables that every process expects. Each name occurs once.
func (p *Process) Env(operatorEnv []string, hostname, home string) []string {
	e := environment{index: make(map[string]int)}
	for _, kv := range slices.Concat(operatorEnv, p.imageEnv) {
		if name, value, ok := strings.Cut(kv, "="); ok && name != "" {
			e.set(name, value)
		}
	}
	for _, v := range p.env {
		e.set(v.Name, v.Value)
	}
	e.setDefault("PATH", defaultPath)
	e.setDefault("HOSTNAME", hostname)
	e.setDefault("HOME", home)
	if p.terminal {
		e.setDefault("TERM", "xterm")
	}
	return e.list
}

// environment is a list of "NAME=value" with unique names.
type environment struct {
	list  []string
	index map[string]int // of a name in list
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

package hooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	v0 "go.podman.io/common/pkg/hooks/0.1.0"
	v1 "go.podman.io/common/pkg/hooks/1.0.0"
	"golang.org/x/sys/unix"
)

// maxFile limits a hook file, in bytes.
const maxFile = 1 << 20

// settleTime is how old the last change of a file must be when the file is read, so that the
// content is kept. Later changes then have another time: the time stamps of the kernel advance
// with each tick, and the time stamps of some file systems only every two seconds.
const settleTime = 3 * time.Second

// file is a hook file as it was read.
type file struct {
	path    string
	state   fileState
	settled bool // a later change changes state
	hook    *v1.Hook
	err     error // why hook is nil
}

// fileState identifies the content of a file. A program can restore the size and the
// modification time of a file that it has edited, but not the change time (ctime).
type fileState struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
	uid, mode    uint32
}

func stateOf(st *unix.Stat_t) fileState {
	return fileState{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim, uid: st.Uid, mode: st.Mode}
}

// current returns f if the file has not changed since f was read, and nil otherwise. f can be
// nil.
func (f *file) current() *file {
	if f == nil || !f.settled {
		return nil
	}
	var st unix.Stat_t
	if unix.Stat(f.path, &st) != nil || stateOf(&st) != f.state {
		return nil
	}
	return f
}

// readFile reads and checks a file. The error is in the result.
func readFile(path string) *file {
	f := &file{path: path}
	r, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO must not block
	if err != nil {
		f.err = err
		return f
	}
	defer r.Close()
	f.hook, f.err = f.read(r)
	return f
}

func (f *file) read(r *os.File) (*v1.Hook, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(r.Fd()), &st); err != nil {
		return nil, err
	}
	f.state = stateOf(&st)
	f.settled = time.Since(time.Unix(st.Ctim.Unix())) > settleTime
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errors.New("must be a regular file")
	}
	if err := checkOwner(&st); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("must have at most %d bytes", maxFile)
	}
	return parse(b)
}

// parse parses and checks a hook, except for the program of the hook.
func parse(b []byte) (*v1.Hook, error) {
	var version struct {
		Version string `json:"version"`
	}
	if err := json.Unmarshal(b, &version); err != nil {
		return nil, err
	}
	var hook *v1.Hook
	var err error
	switch version.Version {
	case v1.Version:
		hook, err = v1.Read(b)
	case v0.Version, "": // files of version 0.1.0 name no version
		hook, err = v0.Read(b)
	default:
		return nil, fmt.Errorf("version: must be %s or %s, is %q", v1.Version, v0.Version, version.Version)
	}
	if err != nil {
		return nil, err
	}
	if len(hook.Hook.Path) == 0 || hook.Hook.Path[0] != '/' {
		return nil, fmt.Errorf("hook.path: must be an absolute path, is %q", hook.Hook.Path)
	}
	if hook.Hook.Timeout != nil && *hook.Hook.Timeout <= 0 {
		return nil, fmt.Errorf("hook.timeout: must be greater than 0 seconds, is %d", *hook.Hook.Timeout)
	}
	// Validate looks for the program, whose absence must not affect other containers.
	check := *hook
	check.Hook.Path = "/"
	return hook, check.Validate(nil)
}

// add adds the hook to an OCI config if the container meets its conditions.
func (f *file) add(config *specs.Spec, c Container) error {
	if f.err != nil {
		return f.err
	}
	match, err := f.hook.When.Match(config, c.Annotations, c.HasMounts)
	if err != nil || !match {
		return err
	}
	if err := f.checkProgram(); err != nil {
		return err
	}
	if config.Hooks == nil {
		config.Hooks = &specs.Hooks{}
	}
	for _, stage := range f.hook.Stages {
		list := stageHooks(config.Hooks, stage)
		*list = append(*list, f.hook.Hook)
	}
	return nil
}

// stageHooks returns the hooks of a stage that Validate accepts. The stage prestart is deprecated:
// runtimes run its hooks together with the hooks of createRuntime.
func stageHooks(h *specs.Hooks, stage string) *[]specs.Hook {
	switch stage {
	case "createContainer":
		return &h.CreateContainer
	case "startContainer":
		return &h.StartContainer
	case "poststart":
		return &h.Poststart
	case "poststop":
		return &h.Poststop
	}
	return &h.CreateRuntime
}

// checkProgram returns an error if the program of the hook is not an executable that only root
// can change.
func (f *file) checkProgram() error {
	path := f.hook.Hook.Path
	if f.inContainer() {
		return nil // the path is a path in the container
	}
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	switch {
	case err != nil:
	case st.Mode&unix.S_IFMT != unix.S_IFREG, st.Mode&0o111 == 0:
		err = errors.New("must be an executable file")
	default:
		err = checkOwner(&st)
	}
	if err != nil {
		return fmt.Errorf("hook.path %s: %w", path, err)
	}
	return nil
}

// inContainer reports whether all stages of the hook run in the file system of the container.
func (f *file) inContainer() bool {
	for _, stage := range f.hook.Stages {
		if stage != "startContainer" {
			return false
		}
	}
	return len(f.hook.Stages) > 0
}

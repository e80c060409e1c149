package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"
)

// Runtime is an OCI runtime binary, configured for a runtime handler.
type Runtime struct {
	Name string // name of the runtime handler
	Path string // path of the binary
	Root string // state directory of the runtime, on tmpfs
	// SystemdCgroup makes the runtime create cgroups through systemd.
	SystemdCgroup bool
	// ScopeProperties says that the runtime sets properties of a container's scope from
	// annotations, as runc 1.0 and crun 0.14 do. Other runtimes ignore such annotations.
	ScopeProperties bool
	// Options are additional options of the runtime, before its command.
	Options []string
	// Guest says that the runtime runs the containers of a pod under a kernel of their own: see
	// StartGuest.
	Guest bool
	// AllowedAnnotations are the annotations that the runtime gets: keys, or prefixes that end
	// in "*".
	AllowedAnnotations []string
	// NoPivot makes the runtime enter root file systems without pivot_root(2).
	NoPivot bool
}

// CreateArgs returns the options of the commands that create a container.
func (r *Runtime) CreateArgs() []string {
	if r.NoPivot {
		return []string{"--no-pivot"}
	}
	return nil
}

// Args returns the command line before the runtime's command. The monitor needs it to call
// create.
func (r *Runtime) Args() []string {
	args := []string{r.Path, "--root", r.Root}
	if r.SystemdCgroup {
		args = append(args, "--systemd-cgroup")
	}
	return append(args, r.Options...)
}

// Run creates and starts a container of the config.json in the directory bundle, and waits until its
// first process exits. An exit status other than 0 is an error.
func (r *Runtime) Run(ctx context.Context, id, bundle string) error {
	args := append(append([]string{"run"}, r.CreateArgs()...), "--bundle", bundle, id)
	_, err := r.call(ctx, nil, args...)
	return err
}

// Start starts the process of a created container.
func (r *Runtime) Start(ctx context.Context, id string) error {
	_, err := r.call(ctx, nil, "start", id)
	return err
}

// Delete deletes a container with its cgroup. With force, Delete kills a running container, and
// it is no error if the runtime does not know the container.
func (r *Runtime) Delete(ctx context.Context, id string, force bool) error {
	args := []string{"delete", id}
	if force {
		args = []string{"delete", "--force", id}
	}
	remove := func() error {
		_, err := r.call(ctx, nil, args...)
		return err
	}
	if r.Guest {
		return r.deleteInGuest(id, remove)
	}
	return remove()
}

// HasContainer reports whether the runtime has state of a container. runc and crun have a
// directory for each container, and runsc has a file.
func (r *Runtime) HasContainer(id string) bool {
	if r.Guest {
		files, err := filepath.Glob(filepath.Join(r.Root, id+"_*.state"))
		return err == nil && len(files) > 0
	}
	_, err := os.Lstat(filepath.Join(r.Root, id))
	return err == nil
}

// Kill sends a signal to the container's first process.
func (r *Runtime) Kill(ctx context.Context, id string, sig unix.Signal) error {
	_, err := r.call(ctx, nil, "kill", id, strconv.Itoa(int(sig)))
	return err
}

// Update changes the limits of a container. Limits that are not set in res stay as they are.
func (r *Runtime) Update(ctx context.Context, id string, res *specs.LinuxResources) error {
	b, err := json.Marshal(res)
	if err != nil {
		return err
	}
	_, err = r.call(ctx, b, "update", "--resources", inputPath, id)
	return err
}

// Features returns the output of the runtime's features command. Runtimes before runc 1.1 and
// crun 1.8 do not have the command and return an error.
func (r *Runtime) Features(ctx context.Context) (*features.Features, error) {
	out, err := r.call(ctx, nil, "features")
	if err != nil {
		return nil, err
	}
	var f features.Features
	if err := json.Unmarshal(out, &f); err != nil {
		return nil, fmt.Errorf("%s features: %w", r.Path, err)
	}
	return &f, nil
}

// Version returns the first line of the runtime's --version output.
func (r *Runtime) Version(ctx context.Context) (string, error) {
	out, err := r.call(ctx, nil, "--version")
	if err != nil {
		return "", err
	}
	line := firstLine(out)
	if line == "" {
		return "", errors.New(r.Path + " --version: no output")
	}
	return line, nil
}

package oci

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

// Runtime is an OCI runtime binary as it is configured for a runtime handler.
type Runtime struct {
	Name string // of the handler
	Path string // of the binary
	Root string // the runtime's own state directory, on tmpfs
	// SystemdCgroup has the runtime make cgroups through systemd.
	SystemdCgroup bool
	// ScopeProperties says that annotations set the properties of a container's
	// scope. runc since 1.0 and crun since 0.14 know them; others ignore them.
	ScopeProperties bool
	// Options are further options of the runtime, before its command.
	Options []string
	// Guest says that the runtime runs the containers of a pod under one kernel
	// of its own: see StartGuest.
	Guest bool
	// AllowedAnnotations are those that are handed on to the runtime: keys, or
	// prefixes ending in "*".
	AllowedAnnotations []string
}

// Args is the command line up to the runtime's command, as the monitor needs
// it to call create.
func (r *Runtime) Args() []string {
	args := []string{r.Path, "--root", r.Root}
	if r.SystemdCgroup {
		args = append(args, "--systemd-cgroup")
	}
	return append(args, r.Options...)
}

// CgroupsPath is the container's cgroup below parent: as the config names it,
// and as a path in the hierarchy.
func (r *Runtime) CgroupsPath(parent, id string) (config, path string) {
	if r.SystemdCgroup {
		slice := parent[lastSlash(parent)+1:]
		return slice + ":criserver:" + id, parent + "/criserver-" + id + ".scope"
	}
	path = parent + "/criserver-" + id
	return path, path
}

func lastSlash(s string) int {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == '/' {
			return i
		}
	}
	return -1
}

// Start has the created container run its process.
func (r *Runtime) Start(ctx context.Context, id string) error {
	_, err := r.call(ctx, nil, "start", id)
	return err
}

// Delete drops what the runtime has of a container, its cgroup included. With
// force one that still runs is killed, and one that is unknown is no error.
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

// Knows says whether the runtime has state of a container. runc and crun have a
// directory for it, and runsc has a file.
func (r *Runtime) Knows(id string) bool {
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

// Update changes the limits of a container; what is not set stays as it is.
func (r *Runtime) Update(ctx context.Context, id string, res *specs.LinuxResources) error {
	b, err := json.Marshal(res)
	if err != nil {
		return err
	}
	_, err = r.call(ctx, b, "update", "--resources", inputPath, id)
	return err
}

// Features asks the runtime what it can do. Those before runc 1.1 and crun 1.8
// do not know the question; that is an error too.
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

// Version is the first line that the runtime says about itself.
func (r *Runtime) Version(ctx context.Context) (string, error) {
	out, err := r.call(ctx, nil, "--version")
	if err != nil {
		return "", err
	}
	line := firstLine(out)
	if line == "" {
		return "", errors.New(r.Path + " --version: no answer")
	}
	return line, nil
}

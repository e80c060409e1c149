package oci

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/atomicfile"
	"github.com/criserver/criserver/internal/boot"
	"github.com/criserver/criserver/internal/ids"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
)

// Chooser finds out which of several runtimes works on this machine by really
// running something in each.
type Chooser struct {
	// RunDir is on tmpfs; the verdicts are kept in it, so that a restart of the
	// daemon need not try again.
	RunDir string
	// Prober is a static binary that ends with exit code 0 when it is run with
	// ProberArgs.
	Prober     string
	ProberArgs []string
	// CgroupParent is where the throwaway container's cgroup is made.
	CgroupParent string
	// Cgroups removes the cgroup that a killed OCI runtime left behind. With the
	// systemd driver, systemd does so.
	Cgroups Cgroups
	Builder *Builder
	// Within bounds each trial; 0 means two minutes. A trial that does not end in
	// time has no verdict.
	Within time.Duration
}

// Cgroups kills the processes of a cgroup and removes the cgroup, as
// [github.com/criserver/criserver/internal/cgroup.Tree] does. A cgroup that does
// not exist is no error.
type Cgroups interface {
	Kill(ctx context.Context, path string) error
	Remove(path string) error
}

// removeContainer removes a throwaway container, also one that the OCI runtime
// does not know, because the runtime was killed before it wrote its state.
func (c *Chooser) removeContainer(ctx context.Context, r *Runtime, id string) error {
	_ = r.Delete(ctx, id, true) // usually there is nothing to delete
	if r.SystemdCgroup {
		return nil
	}
	_, path := r.CgroupsPath(c.CgroupParent, id)
	return errors.Join(c.Cgroups.Kill(ctx, path), c.Cgroups.Remove(path))
}

func (c *Chooser) within() time.Duration { return cmp.Or(c.Within, proveTimeout) }

// verdict is what was found out about a binary; it holds for as long as the
// binary and the machine are the same.
type verdict struct {
	Version int    `json:"version"`
	Boot    string `json:"boot"`
	Size    int64  `json:"size"`
	ModTime int64  `json:"modTime"`
	Root    string `json:"root"`
	Systemd bool   `json:"systemd"`
	Storage string `json:"storage,omitempty"`
	Failure string `json:"failure,omitempty"` // "" when it works
}

const (
	verdictVersion = 1
	// proveTimeout is some thousand times what a trial takes on an idle machine.
	proveTimeout = 2 * time.Minute
)

// Choose returns the first candidate that works. What is wrong with those
// before it is logged; when none works the error says it of all.
func (c *Chooser) Choose(ctx context.Context, candidates ...*Runtime) (*Runtime, error) {
	var errs []error
	for _, r := range candidates {
		log := logrus.WithContext(ctx).WithFields(logrus.Fields{"runtime": r.Name, "path": r.Path})
		err := c.try(ctx, r)
		if err == nil {
			log.Info("OCI runtime chosen")
			return r, nil
		}
		log.WithError(err).Warn("OCI runtime does not work on this machine")
		errs = append(errs, fmt.Errorf("runtime %q: %w", r.Name, err))
	}
	return nil, fmt.Errorf("no OCI runtime works: %w", errors.Join(append(errs, errdefs.ErrUnavailable)...))
}

func (c *Chooser) try(ctx context.Context, r *Runtime) error {
	want, err := facts(r)
	if err != nil {
		return err
	}
	return c.judge(ctx, "runtime-"+filepath.Base(r.Path), want, func(ctx context.Context) error { return c.prove(ctx, r) })
}

// judge takes a kept verdict or comes to a new one. A trial that ended with its
// deadline is no verdict: on a machine under load it says nothing of the runtime.
func (c *Chooser) judge(ctx context.Context, name string, want verdict, prove func(context.Context) error) error {
	file := filepath.Join(c.RunDir, name+".json")
	var kept verdict
	if b, err := os.ReadFile(file); err == nil && json.Unmarshal(b, &kept) == nil {
		failure := kept.Failure
		kept.Failure = ""
		if kept == want {
			if failure != "" {
				return errors.New(failure)
			}
			return nil
		}
	}
	failure := prove(ctx)
	if ctx.Err() != nil {
		return errors.Join(failure, ctx.Err()) // says nothing of the runtime
	}
	if errors.Is(failure, context.DeadlineExceeded) {
		return failure
	}
	if failure != nil {
		want.Failure = failure.Error()
	}
	if b, err := json.Marshal(want); err == nil {
		if err := atomicfile.Write(file, b, 0o600); err != nil {
			logrus.WithContext(ctx).WithError(err).Warn("verdict on the OCI runtime is not kept")
		}
	}
	return failure
}

func facts(r *Runtime) (verdict, error) {
	info, err := os.Stat(r.Path)
	if err != nil {
		return verdict{}, err
	}
	id, err := boot.ID()
	return verdict{
		Version: verdictVersion, Boot: id, Size: info.Size(), ModTime: info.ModTime().UnixNano(), Root: r.Root, Systemd: r.SystemdCgroup,
	}, err
}

// provePrefix begins the name of the bundle of a trial; the container's id
// follows.
const provePrefix = "prove-"

// prove runs the prober in a container of its own and removes all traces, also
// those of a trial during which the daemon was killed.
func (c *Chooser) prove(ctx context.Context, r *Runtime) (err error) {
	c.sweepProofs(ctx, r)
	ctx, cancel := context.WithTimeout(ctx, c.within())
	defer cancel()
	id := ids.New()
	bundle := filepath.Join(c.RunDir, provePrefix+id)
	if err := os.Mkdir(bundle, 0o700); err != nil {
		return err
	}
	failed := true
	defer func() {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), proveTimeout)
		defer cancel()
		err = errors.Join(err, c.endProof(cleanup, r, id, failed))
	}()
	if err := c.proofBundle(r, bundle, id); err != nil {
		return err
	}
	_, err = r.call(ctx, nil, "run", "--bundle", bundle, id)
	failed = err != nil
	return err
}

func (c *Chooser) endProof(ctx context.Context, r *Runtime, id string, failed bool) error {
	if failed {
		if err := c.removeContainer(ctx, r, id); err != nil {
			return err
		}
	}
	return os.RemoveAll(filepath.Join(c.RunDir, provePrefix+id))
}

// sweepProofs removes what trials left behind during which the daemon was killed.
func (c *Chooser) sweepProofs(ctx context.Context, r *Runtime) {
	left, _ := filepath.Glob(filepath.Join(c.RunDir, provePrefix+"*")) // the pattern is sound
	for _, bundle := range left {
		id := strings.TrimPrefix(filepath.Base(bundle), provePrefix)
		if !ids.Valid(id) {
			continue
		}
		if err := c.endProof(ctx, r, id, true); err != nil {
			logrus.WithContext(ctx).WithError(err).Warn("cannot remove the remains of a trial of an OCI runtime")
		}
	}
}

func (c *Chooser) proofBundle(r *Runtime, bundle, id string) error {
	rootfs := filepath.Join(bundle, "rootfs")
	if err := os.Mkdir(rootfs, 0o755); err != nil {
		return err
	}
	cgroup, _ := r.CgroupsPath(c.CgroupParent, id)
	prober := "/" + filepath.Base(c.Prober)
	res, err := c.Builder.Build(Input{
		Args: append([]string{prober}, c.ProberArgs...), Env: []string{"PATH=/"}, Cwd: "/", RootFS: rootfs, CgroupsPath: cgroup,
		Namespaces: Namespaces{NewPID: true},
		Mounts:     []Mount{{Source: c.Prober, Destination: prober, ReadOnly: true}},
	})
	if err != nil {
		return err
	}
	// A network of its own, empty, as containers always join one.
	res.Spec.Linux.Namespaces = append(res.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace}, specs.LinuxNamespace{Type: specs.IPCNamespace})
	b, err := Encode(res.Spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(bundle, "config.json"), b, 0o600)
}

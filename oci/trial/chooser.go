package trial

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
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/runtime"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
)

// Chooser finds out which of several runtimes works on this host, by running a container with
// each.
type Chooser struct {
	// RunDir is a directory on tmpfs for the results of trials, so that a restarted daemon need
	// not repeat them.
	RunDir string
	// Prober is a static binary that exits with 0 when it is run with ProberArgs.
	Prober     string
	ProberArgs []string
	// CgroupParent is the parent of the cgroup of the trial container.
	CgroupParent string
	// Cgroups removes the cgroup that a killed OCI runtime has left behind. With the systemd
	// driver, systemd removes it.
	Cgroups Cgroups
	Builder *oci.Builder
	// Timeout limits each trial; 0 means two minutes. A trial that exceeds it has no
	// result.
	Timeout time.Duration
}

// Cgroups kills the processes of a cgroup and removes the cgroup, as
// [github.com/criserver/criserver/internal/cgroup.Tree] does. A cgroup that does
// not exist is no error.
type Cgroups interface {
	Kill(ctx context.Context, path string) error
	Remove(path string) error
}

// removeContainer removes the container of a trial, even if the OCI runtime does not know the
// container because the runtime was killed before it wrote its state.
func (c *Chooser) removeContainer(ctx context.Context, r *runtime.Runtime, id string) error {
	_ = r.Delete(ctx, id, true) // usually there is nothing to delete
	if r.SystemdCgroup {
		return nil
	}
	_, path := r.CgroupsPath(c.CgroupParent, id)
	return errors.Join(c.Cgroups.Kill(ctx, path), c.Cgroups.Remove(path))
}

func (c *Chooser) timeout() time.Duration { return cmp.Or(c.Timeout, defaultTimeout) }

// result is the stored result of a trial. It is valid while the binary and the host are
// the same.
type result struct {
	Version int    `json:"version"`
	Boot    string `json:"boot"`
	Size    int64  `json:"size"`
	ModTime int64  `json:"modTime"`
	Root    string `json:"root"`
	Systemd bool   `json:"systemd"`
	Storage string `json:"storage,omitempty"`
	Failure string `json:"failure,omitempty"` // "" if the runtime works
}

const (
	resultVersion = 1
	// defaultTimeout is the default time limit of a trial. On an idle host a trial takes less
	// than 0.1 s.
	defaultTimeout = 2 * time.Minute
)

// Choose returns the first candidate that works. It logs the errors of earlier candidates. If
// no candidate works, it returns the errors of all.
func (c *Chooser) Choose(ctx context.Context, candidates ...*runtime.Runtime) (*runtime.Runtime, error) {
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

// try tests a runtime, or returns the stored result.
func (c *Chooser) try(ctx context.Context, r *runtime.Runtime) error {
	want, err := keyOf(r)
	if err != nil {
		return err
	}
	return c.cached(ctx, "runtime-"+filepath.Base(r.Path), want, func(ctx context.Context) error { return c.run(ctx, r) })
}

// cached returns the stored result of a trial, or runs the trial and stores the result. It
// does not store the result of a trial that timed out: on a busy host, a timeout says nothing
// about the runtime.
func (c *Chooser) cached(ctx context.Context, name string, want result, trial func(context.Context) error) error {
	file := filepath.Join(c.RunDir, name+".json")
	var kept result
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
	failure := trial(ctx)
	if ctx.Err() != nil {
		return errors.Join(failure, ctx.Err()) // a canceled trial says nothing about the runtime
	}
	if errors.Is(failure, context.DeadlineExceeded) {
		return failure
	}
	if failure != nil {
		want.Failure = failure.Error()
	}
	if b, err := json.Marshal(want); err == nil {
		if err := atomicfile.Write(file, b, 0o600); err != nil {
			logrus.WithContext(ctx).WithError(err).Warn("could not store the result of the OCI runtime's trial")
		}
	}
	return failure
}

// keyOf returns the facts for which the result of a trial is valid.
func keyOf(r *runtime.Runtime) (result, error) {
	info, err := os.Stat(r.Path)
	if err != nil {
		return result{}, err
	}
	id, err := boot.ID()
	return result{
		Version: resultVersion, Boot: id, Size: info.Size(), ModTime: info.ModTime().UnixNano(), Root: r.Root, Systemd: r.SystemdCgroup,
	}, err
}

// bundlePrefix is the prefix of the names of trial bundles. The id of the container follows.
const bundlePrefix = "prove-"

// run runs the prober in a container. It removes everything that this trial, and earlier
// trials of a killed daemon, have made.
func (c *Chooser) run(ctx context.Context, r *runtime.Runtime) (err error) {
	c.removeOld(ctx, r)
	ctx, cancel := context.WithTimeout(ctx, c.timeout())
	defer cancel()
	id := ids.New()
	bundle := filepath.Join(c.RunDir, bundlePrefix+id)
	if err := os.Mkdir(bundle, 0o700); err != nil {
		return err
	}
	failed := true
	defer func() {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), defaultTimeout)
		defer cancel()
		err = errors.Join(err, c.remove(cleanup, r, id, failed))
	}()
	if err := c.makeBundle(r, bundle, id); err != nil {
		return err
	}
	err = r.Run(ctx, id, bundle)
	failed = err != nil
	return err
}

// remove removes the files and cgroups of a trial.
func (c *Chooser) remove(ctx context.Context, r *runtime.Runtime, id string, failed bool) error {
	if failed {
		if err := c.removeContainer(ctx, r, id); err != nil {
			return err
		}
	}
	return os.RemoveAll(filepath.Join(c.RunDir, bundlePrefix+id))
}

// removeOld removes the leftovers of trials that a kill of the daemon has interrupted.
func (c *Chooser) removeOld(ctx context.Context, r *runtime.Runtime) {
	bundles, _ := filepath.Glob(filepath.Join(c.RunDir, bundlePrefix+"*")) // the pattern is valid
	for _, bundle := range bundles {
		id := strings.TrimPrefix(filepath.Base(bundle), bundlePrefix)
		if !ids.Valid(id) {
			continue
		}
		if err := c.remove(ctx, r, id, true); err != nil {
			logrus.WithContext(ctx).WithError(err).Warn("could not remove an old trial of an OCI runtime")
		}
	}
}

// makeBundle makes the bundle of a trial.
func (c *Chooser) makeBundle(r *runtime.Runtime, bundle, id string) error {
	rootfs := filepath.Join(bundle, "rootfs")
	if err := os.Mkdir(rootfs, 0o755); err != nil {
		return err
	}
	cgroup, _ := r.CgroupsPath(c.CgroupParent, id)
	prober := "/" + filepath.Base(c.Prober)
	res, err := c.Builder.Build(oci.Input{
		Args: append([]string{prober}, c.ProberArgs...), Env: []string{"PATH=/"}, Cwd: "/", RootFS: rootfs, CgroupsPath: cgroup,
		Namespaces: oci.Namespaces{NewPID: true},
		Mounts:     []oci.Mount{{Source: c.Prober, Destination: prober, ReadOnly: true}},
	})
	if err != nil {
		return err
	}
	// The container gets a new, empty network namespace. Build only adds namespaces to join.
	res.Spec.Linux.Namespaces = append(res.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace}, specs.LinuxNamespace{Type: specs.IPCNamespace})
	b, err := oci.Encode(res.Spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(bundle, "config.json"), b, 0o600)
}

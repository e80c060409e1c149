package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/userns"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// UserNSTrial is what it takes to run a container in a user namespace that is
// there already, as a pod's is.
type UserNSTrial struct {
	Holder userns.Holder
	// Storage is a directory on the file system that holds the layers of images.
	Storage string
	// MountRootFS mounts a root file system for the user namespace at that path at
	// target, and keeps in dir, which is empty, what it needs for that.
	MountRootFS func(dir, target, userNS string) error
}

// trialMaps are ids that no pod is likely to have.
var trialMaps = []userns.Mapping{{HostID: 1 << 30, Size: 65536}}

const (
	trialPrefix = "userns-"
	trialMapped = "/mapped" // in the container, a mount of mapped ids
)

// TryUserNS says why a runtime cannot run containers in a user namespace, or nil
// when it has just done so, or on this boot before: only success is kept. The
// container finds its root file system and a mount of mapped ids to be its
// root's, and /sys not the host's. The error is context.DeadlineExceeded when
// the trial did not end in time. Trials must not run side by side: each removes
// the remains of earlier ones.
func (c *Chooser) TryUserNS(ctx context.Context, r *Runtime, t UserNSTrial) error {
	want, err := facts(r)
	if err != nil {
		return err
	}
	want.Storage = t.Storage
	err = c.judge(ctx, trialPrefix+r.Name, want, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, c.within())
		defer cancel()
		c.sweepTrials(ctx, r, t)
		return c.tryUserNS(ctx, r, t)
	})
	if err != nil {
		// What is in the way may be out of it at the next start: a directory that is
		// closed, a sysctl.
		err = errors.Join(err, os.RemoveAll(filepath.Join(c.RunDir, trialPrefix+r.Name+".json")))
	}
	return err
}

// tryUserNS makes the namespaces as a pod's are made, and removes all traces,
// also of a trial that failed.
func (c *Chooser) tryUserNS(ctx context.Context, r *Runtime, t UserNSTrial) (err error) {
	const flags = unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	id := ids.New()
	defer func() {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), proveTimeout)
		defer cancel()
		err = errors.Join(err, c.endTrial(cleanup, r, t, id, err != nil))
	}()
	return t.Holder.Hold(userns.Maps{UIDs: trialMaps, GIDs: trialMaps}, flags, func(pid int) error {
		err := c.trialBundle(r, t, id, Namespaces{
			User: userns.Path(pid, "user"), Net: userns.Path(pid, "net"), IPC: userns.Path(pid, "ipc"), UTS: userns.Path(pid, "uts"), NewPID: true,
		})
		if err == nil {
			err = ownMounts()
		}
		if err == nil {
			_, err = r.call(ctx, nil, "run", "--bundle", filepath.Join(c.RunDir, trialPrefix+id), id)
		}
		return err
	})
}

// ownMounts gives the calling thread, and what it starts, a mount namespace from
// which nothing comes out: crun 1.8, where it cannot mount a sysfs, binds the
// host's, and what it mounts in that appears on the host.
func ownMounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mounts slaves: %w", err)
	}
	return nil
}

// trialBundle makes the bundle and what it needs, as package container does.
func (c *Chooser) trialBundle(r *Runtime, t UserNSTrial, id string, ns Namespaces) error {
	bundle, storage := filepath.Join(c.RunDir, trialPrefix+id), filepath.Join(t.Storage, trialPrefix+id)
	rootfs, mapped := filepath.Join(bundle, "rootfs"), filepath.Join(bundle, "mapped")
	for _, dir := range []string{bundle, storage, rootfs, mapped} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	root := int(trialMaps[0].HostID)
	if err := errors.Join(os.Chown(bundle, 0, root), os.Chmod(bundle, 0o710)); err != nil {
		return err
	}
	if err := t.MountRootFS(storage, rootfs, ns.User); err != nil {
		return err
	}
	spec, err := c.trialSpec(r, id, rootfs, mapped, ns)
	if err != nil {
		return err
	}
	b, err := Encode(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(bundle, "config.json"), b, 0o600)
}

func (c *Chooser) trialSpec(r *Runtime, id, rootfs, mapped string, ns Namespaces) (*specs.Spec, error) {
	cgroup, _ := r.CgroupsPath(c.CgroupParent, id)
	prober := "/" + filepath.Base(c.Prober)
	ids := []specs.LinuxIDMapping{{HostID: trialMaps[0].HostID, Size: trialMaps[0].Size}}
	var sys unix.Stat_t
	if err := unix.Stat("/sys", &sys); err != nil {
		return nil, os.NewSyscallError("stat /sys", err)
	}
	demands := []string{"/", trialMapped, fmt.Sprintf("/sys!%d", sys.Dev)}
	res, err := c.Builder.Build(Input{
		Args: slices.Concat([]string{prober}, c.ProberArgs, demands), Env: []string{"PATH=/"}, Cwd: "/", RootFS: rootfs, CgroupsPath: cgroup,
		Namespaces: ns, UserGIDs: trialMaps,
		Mounts: []Mount{
			{Source: c.Prober, Destination: prober, ReadOnly: true},
			{Source: mapped, Destination: trialMapped, UIDMappings: ids, GIDMappings: ids},
		},
	})
	if err != nil {
		return nil, err
	}
	return res.Spec, nil
}

// endTrial removes what a trial has made.
func (c *Chooser) endTrial(ctx context.Context, r *Runtime, t UserNSTrial, id string, failed bool) error {
	if failed {
		if err := c.removeContainer(ctx, r, id); err != nil {
			return err
		}
	}
	bundle := filepath.Join(c.RunDir, trialPrefix+id)
	err := unix.Unmount(filepath.Join(bundle, "rootfs"), unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount the trial's root file system: %w", err)
	}
	return errors.Join(os.RemoveAll(bundle), os.RemoveAll(filepath.Join(t.Storage, trialPrefix+id)))
}

// sweepTrials removes what is left of one during which the daemon was killed.
func (c *Chooser) sweepTrials(ctx context.Context, r *Runtime, t UserNSTrial) {
	for _, dir := range []string{c.RunDir, t.Storage} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			logrus.WithContext(ctx).WithError(err).Warn("remains of a trial could not be looked for")
		}
		for _, e := range entries {
			id, found := strings.CutPrefix(e.Name(), trialPrefix)
			if !found || !ids.Valid(id) {
				continue
			}
			if err := c.endTrial(ctx, r, t, id, true); err != nil {
				logrus.WithContext(ctx).WithError(err).Warn("remains of a trial could not be removed")
			}
		}
	}
}

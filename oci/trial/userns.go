package trial

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
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/runtime"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// UserNS describes an existing user namespace in which a container can run, such as the user namespace
// of a pod.
type UserNS struct {
	Holder userns.Holder
	// Storage is a directory on the file system with the layers of images.
	Storage string
	// MountRootFS mounts a root file system at target, with ids mapped for the user namespace
	// at the path userNS. It may store files in dir, which is empty.
	MountRootFS func(dir, target, userNS string) error
	// HostNetwork runs the container in the network of the host. The user namespace has no rights
	// over this network, so a runtime can need other mounts.
	HostNetwork bool
}

// resultName returns the name of the stored result for a runtime.
func (t UserNS) resultName(r *runtime.Runtime) string {
	if t.HostNetwork {
		return "usernshost-" + r.Name
	}
	return userNSPrefix + r.Name
}

// mappings maps to host ids that pods are unlikely to use.
var mappings = []userns.Mapping{{HostID: 1 << 30, Size: 65536}}

const (
	userNSPrefix    = "userns-"
	mappedMountPath = "/mapped" // path of an id-mapped mount in the container
)

// TryUserNS returns nil if a runtime can run containers in a user namespace, and otherwise an
// error. It stores only success, until the next boot. In the trial, the root file system and an
// id-mapped mount must belong to the container's root user, and /sys must not be the host's; with
// the network of the host, /sys must be read-only.
// The error is context.DeadlineExceeded if the trial timed out. Trials must not run
// concurrently, because each removes the remains of others.
func (c *Chooser) TryUserNS(ctx context.Context, r *runtime.Runtime, t UserNS) error {
	want, err := keyOf(r)
	if err != nil {
		return err
	}
	want.Storage = t.Storage
	err = c.cached(ctx, t.resultName(r), want, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, c.timeout())
		defer cancel()
		c.removeOldUserNS(ctx, r, t)
		return c.runUserNS(ctx, r, t)
	})
	if err != nil {
		// The cause may be fixed before the next start, for instance a sysctl or the mode of a
		// directory.
		err = errors.Join(err, os.RemoveAll(filepath.Join(c.RunDir, t.resultName(r)+".json")))
	}
	return err
}

// runUserNS makes namespaces as a pod has them and runs the trial. It removes
// everything that the trial has made, even if the trial fails.
func (c *Chooser) runUserNS(ctx context.Context, r *runtime.Runtime, t UserNS) (err error) {
	flags := uintptr(unix.CLONE_NEWIPC)
	if !t.HostNetwork {
		flags |= unix.CLONE_NEWNET | unix.CLONE_NEWUTS // as in a pod
	}
	id := ids.New()
	defer func() {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), defaultTimeout)
		defer cancel()
		err = errors.Join(err, c.removeUserNS(cleanup, r, t, id, err != nil))
	}()
	return t.Holder.Hold(userns.Maps{UIDs: mappings, GIDs: mappings}, flags, func(pid int) error {
		ns := oci.Namespaces{User: userns.Path(pid, "user"), IPC: userns.Path(pid, "ipc"), NewPID: true}
		if !t.HostNetwork {
			ns.Net, ns.UTS = userns.Path(pid, "net"), userns.Path(pid, "uts")
		}
		err := c.makeUserNSBundle(r, t, id, ns)
		if err == nil {
			err = isolateMounts()
		}
		if err == nil {
			err = r.Run(ctx, id, filepath.Join(c.RunDir, userNSPrefix+id))
		}
		return err
	})
}

// isolateMounts gives the calling thread and its children a mount namespace without propagation
// to the host. If crun 1.8 cannot mount a sysfs, it binds the host's, and its mounts in there
// would appear on the host.
func isolateMounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mounts slaves: %w", err)
	}
	return nil
}

// makeUserNSBundle makes the bundle and the mounts, in the same way as package container.
func (c *Chooser) makeUserNSBundle(r *runtime.Runtime, t UserNS, id string, ns oci.Namespaces) error {
	bundle, storage := filepath.Join(c.RunDir, userNSPrefix+id), filepath.Join(t.Storage, userNSPrefix+id)
	rootfs, mapped := filepath.Join(bundle, "rootfs"), filepath.Join(bundle, "mapped")
	for _, dir := range []string{bundle, storage, rootfs, mapped} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	root := int(mappings[0].HostID)
	if err := errors.Join(os.Chown(bundle, 0, root), os.Chmod(bundle, 0o710)); err != nil {
		return err
	}
	if err := t.MountRootFS(storage, rootfs, ns.User); err != nil {
		return err
	}
	spec, err := c.userNSSpec(r, id, rootfs, mapped, ns)
	if err != nil {
		return err
	}
	b, err := oci.Encode(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(bundle, "config.json"), b, 0o600)
}

// userNSSpec returns the config of the trial container.
func (c *Chooser) userNSSpec(r *runtime.Runtime, id, rootfs, mapped string, ns oci.Namespaces) (*specs.Spec, error) {
	cgroup, _ := r.CgroupsPath(c.CgroupParent, id)
	prober := "/" + filepath.Base(c.Prober)
	ids := []specs.LinuxIDMapping{{HostID: mappings[0].HostID, Size: mappings[0].Size}}
	var sys unix.Stat_t
	if err := unix.Stat("/sys", &sys); err != nil {
		return nil, os.NewSyscallError("stat /sys", err)
	}
	conditions := []string{"/", mappedMountPath}
	if ns.Net == "" {
		conditions = append(conditions, "/sys=ro")
	} else {
		conditions = append(conditions, fmt.Sprintf("/sys!%d", sys.Dev))
	}
	res, err := c.Builder.Build(oci.Input{
		Args: slices.Concat([]string{prober}, c.ProberArgs, conditions), Env: []string{"PATH=/"}, Cwd: "/", RootFS: rootfs, CgroupsPath: cgroup,
		Namespaces: ns, UserGIDs: mappings,
		Mounts: []oci.Mount{
			{Source: c.Prober, Destination: prober, ReadOnly: true},
			{Source: mapped, Destination: mappedMountPath, UIDMappings: ids, GIDMappings: ids},
		},
	})
	if err != nil {
		return nil, err
	}
	return res.Spec, nil
}

// removeUserNS removes the files and cgroups of a trial.
func (c *Chooser) removeUserNS(ctx context.Context, r *runtime.Runtime, t UserNS, id string, failed bool) error {
	if failed {
		if err := c.removeContainer(ctx, r, id); err != nil {
			return err
		}
	}
	bundle := filepath.Join(c.RunDir, userNSPrefix+id)
	err := unix.Unmount(filepath.Join(bundle, "rootfs"), unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount the trial's root file system: %w", err)
	}
	return errors.Join(os.RemoveAll(bundle), os.RemoveAll(filepath.Join(t.Storage, userNSPrefix+id)))
}

// removeOldUserNS removes the leftovers of trials if the daemon was killed during
// them.
func (c *Chooser) removeOldUserNS(ctx context.Context, r *runtime.Runtime, t UserNS) {
	for _, dir := range []string{c.RunDir, t.Storage} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			logrus.WithContext(ctx).WithError(err).Warn("could not look for old trials of an OCI runtime")
		}
		for _, e := range entries {
			id, found := strings.CutPrefix(e.Name(), userNSPrefix)
			if !found || !ids.Valid(id) {
				continue
			}
			if err := c.removeUserNS(ctx, r, t, id, true); err != nil {
				logrus.WithContext(ctx).WithError(err).Warn("could not remove an old trial of an OCI runtime")
			}
		}
	}
}

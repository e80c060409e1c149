package machine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// apply sets up the namespaces of the calling process.
func (s setup) apply() error {
	for _, dir := range s.Cgroups {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(0)), 0o644); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return fmt.Errorf("set hostname: %w", err)
	}
	return errors.Join(s.mount(), setUpNetwork())
}

// mount gives the machine its own /proc, /run, /var and /etc. The mounts of the host are private, and the mounts of the
// machine are shared, as systemd mounts them.
func (s setup) mount() error {
	overlay := fmt.Sprintf("lowerdir=/etc,upperdir=%s,workdir=%s", filepath.Join(s.Etc, "upper"), filepath.Join(s.Etc, "work"))
	type mount struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}
	mounts := []mount{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""},
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{s.Var, "/var", "", unix.MS_BIND, ""},
		{"overlay", "/etc", "overlay", 0, overlay},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
	}
	if s.Disk > 0 {
		mounts = append(mounts, mount{"disk", "/var/lib", "tmpfs", 0, fmt.Sprintf("mode=755,size=%d", s.Disk)})
	}
	for _, m := range mounts {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.source, m.target, err)
		}
	}
	if s.Systemd {
		if err := mountCgroup(); err != nil {
			return err
		}
	} else if err := unmountUnified(); err != nil {
		return err
	}
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

// unmountUnified unmounts the hierarchy of cgroup v2 next to the hierarchies of v1, which old releases of
// crun do not support. No other mount namespace sees the change, because all mounts are private here.
func unmountUnified() error {
	const unified = "/sys/fs/cgroup/unified"
	if err := unix.Unmount(unified, 0); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", unified, err)
	}
	return nil
}

// setUpNetwork enables the loopback interface and forwarding.
func setUpNetwork() error {
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip link set lo up: %w: %s", err, out)
	}
	for name, value := range map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1",
		// Without duplicate address detection an address can be used at once.
		"net/ipv6/conf/all/accept_dad": "0", "net/ipv6/conf/default/accept_dad": "0",
	} {
		if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0o644); err != nil {
			return err
		}
	}
	return nil
}

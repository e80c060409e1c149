package guest

import (
	"context"
	"os"
	"path/filepath"
)

// Marker is a file that only guests have. Suites that change the whole system look for it.
const Marker = "/etc/criserver-test-guest"

// WorkLabel is the label of the file system that is mounted on WorkDir.
const WorkLabel = "work"

// WorkDir is where a guest finds the project and the agent.
const WorkDir = "/work"

const agentUnit = `[Unit]
Description=Runs the commands of the host that tests this guest
After=dbus.service
RequiresMountsFor=/work

[Service]
ExecStart=/work/agent
WorkingDirectory=/
Environment=HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TMPDIR=/var/tmp LC_ALL=C.UTF-8
# Suites start daemons in this unit, whose monitors get a cgroup of their own.
Delegate=yes
LimitNOFILE=1048576
TasksMax=infinity
OOMScoreAdjust=-500

[Install]
WantedBy=multi-user.target
`

// systemFiles are the files that make a guest of a fresh installation.
func systemFiles() map[string]string {
	return map[string]string{
		Marker:            "This system is a guest that tests of criserver boot.\n",
		"/etc/hostname":   "guest\n",
		"/etc/hosts":      "127.0.0.1 localhost\n127.0.1.1 guest\n::1 localhost\n",
		"/etc/fstab":      "LABEL=" + WorkLabel + " " + WorkDir + " ext4 defaults 0 2\n",
		"/etc/machine-id": "",
		"/etc/systemd/system/criserver-test-agent.service": agentUnit,
	}
}

// masked are the units that only cost time in a guest.
var masked = []string{
	"serial-getty@ttyS0.service", "getty@tty1.service", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer",
	"e2scrub_reap.service", "fstrim.timer", "dpkg-db-backup.timer", "systemd-pcrphase.service", "systemd-timesyncd.service",
}

func configure(ctx context.Context, r Release, top, root string) error {
	for name, body := range systemFiles() {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			return err
		}
	}
	units := filepath.Join(root, "etc/systemd/system")
	links := map[string]string{
		"multi-user.target.wants/criserver-test-agent.service": "../criserver-test-agent.service",
	}
	for _, unit := range masked {
		links[unit] = "/dev/null"
	}
	for name, to := range links {
		path := filepath.Join(units, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		_ = os.Remove(path)
		if err := os.Symlink(to, path); err != nil {
			return err
		}
	}
	// The journal of an earlier boot is of interest, too.
	for _, dir := range []string{"var/log/journal", WorkDir} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	archives, err := filepath.Glob(filepath.Join(root, "var/cache/apt/archives/*.deb"))
	if err != nil {
		return err
	}
	for _, archive := range archives {
		if err := os.Remove(archive); err != nil {
			return err
		}
	}
	if r.Setup != nil {
		return r.Setup(ctx, top, root)
	}
	return nil
}

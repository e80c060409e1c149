package packaging

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// host is a fake host for the maintainer scripts: programs that only record their calls, in place
// of those that would change this host.
type host struct {
	dir     string
	systemd bool   // systemd is running
	enabled bool   // the unit was not disabled
	mounts  string // content of the mount table
}

// fakePrograms are the programs that the scripts run with an effect on the host.
var fakePrograms = []string{"deb-systemd-helper", "deb-systemd-invoke", "systemctl", "systemd-sysctl"}

// run runs a maintainer script and returns the calls of the fake programs.
func (h host) run(t *testing.T, script string, env []string, args ...string) (calls []string, output string) {
	t.Helper()
	text, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	mounts, systemd, log := filepath.Join(h.dir, "mountinfo"), filepath.Join(h.dir, "systemd"), filepath.Join(h.dir, "calls")
	if err := os.WriteFile(mounts, []byte(h.mounts), 0o600); err != nil {
		t.Fatal(err)
	}
	if h.systemd {
		if err := os.MkdirAll(systemd, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range fakePrograms {
		fake := fmt.Sprintf("#!/bin/sh\necho %s $* >>%s\n", name, log)
		if name == "deb-systemd-helper" && !h.enabled {
			fake += "case $* in *was-enabled*) exit 1 ;; esac\n"
		}
		if err := os.WriteFile(filepath.Join(h.dir, name), []byte(fake), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	replaced := strings.NewReplacer("/proc/self/mountinfo", mounts, "/run/systemd/system", systemd,
		"/lib/systemd/systemd-sysctl", "systemd-sysctl").Replace(string(text))
	cmd := exec.CommandContext(t.Context(), "sh", append([]string{"-c", replaced, script}, args...)...)
	cmd.Env = append([]string{"PATH=" + h.dir + ":" + os.Getenv("PATH")}, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", script, args, err, out)
	}
	b, err := os.ReadFile(log)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n"), string(out)
}

func TestScriptsAndUnit(t *testing.T) {
	const (
		wasEnabled = "deb-systemd-helper --quiet was-enabled criserver.service"
		enable     = "deb-systemd-helper enable criserver.service"
		sysctl     = "systemd-sysctl 60-criserver.conf"
		reload     = "systemctl --system daemon-reload"
	)
	for _, tc := range []struct {
		name   string
		host   host
		script string
		args   []string
		want   []string
	}{
		{
			"first installation",
			host{systemd: true, enabled: true},
			"postinst",
			[]string{"configure", ""},
			[]string{wasEnabled, enable, sysctl, reload, "deb-systemd-invoke start criserver.service"},
		},
		{
			"upgrade",
			host{systemd: true, enabled: true},
			"postinst",
			[]string{"configure", "1.0.0"},
			[]string{wasEnabled, enable, sysctl, reload, "deb-systemd-invoke restart criserver.service"},
		},
		{
			"upgrade of a disabled unit",
			host{systemd: true},
			"postinst",
			[]string{"configure", "1.0.0"},
			[]string{
				wasEnabled, "deb-systemd-helper update-state criserver.service", sysctl, reload,
				"deb-systemd-invoke restart criserver.service", // does nothing if the unit is disabled and not active
			},
		},
		{
			"aborted removal",
			host{systemd: true, enabled: true},
			"postinst",
			[]string{"abort-remove"},
			[]string{wasEnabled, enable, sysctl, reload, "deb-systemd-invoke restart criserver.service"},
		},
		{"without systemd", host{enabled: true}, "postinst", []string{"configure", ""}, []string{wasEnabled, enable}},
		{"removal", host{systemd: true}, "prerm", []string{"remove"}, []string{"deb-systemd-invoke stop criserver.service"}},
		{"before an upgrade", host{systemd: true}, "prerm", []string{"upgrade", "1.1.0"}, []string{""}},
		{"after a removal", host{systemd: true}, "postrm", []string{"remove"}, []string{reload}},
		{"old package after an upgrade", host{systemd: true}, "postrm", []string{"upgrade", "1.1.0"}, []string{""}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.host.dir = t.TempDir()
			if got, out := tc.host.run(t, tc.script, nil, tc.args...); !slices.Equal(got, tc.want) {
				t.Errorf("got  %q\nwant %q\n%s", got, tc.want, out)
			}
		})
	}
}

func TestPurge(t *testing.T) {
	for _, tc := range []struct {
		name   string
		record string // a record below the state directory
		mount  string // a mount point below the root directory
		kept   bool
	}{
		{name: "no pods"},
		{name: "state directory is a mount point", mount: "/var/lib/criserver"},
		{name: "mount of another program", mount: "/var/lib/criserver-other/x"},
		{name: "pod", record: "pods/1", kept: true},
		{name: "container", record: "containers/1", kept: true},
		{name: "mounted root file system", mount: "/run/criserver/containers/1/rootfs", kept: true},
		{name: "mount in a layer", mount: "/var/lib/criserver/layers/1", kept: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := t.TempDir()
			state, run := filepath.Join(root, "var/lib/criserver"), filepath.Join(root, "run/criserver")
			for _, dir := range []string{filepath.Join(state, "layers", "1"), filepath.Join(run, "pods"), filepath.Join(run, "containers"), filepath.Join(run, tc.record)} {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			h := host{dir: t.TempDir(), mounts: "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"}
			if tc.mount != "" {
				h.mounts += "30 22 0:20 / " + root + tc.mount + " rw - overlay overlay rw\n"
			}
			calls, out := h.run(t, "postrm", []string{"DPKG_ROOT=" + root}, "purge")
			if want := []string{"deb-systemd-helper purge criserver.service"}; !slices.Equal(calls, want) {
				t.Errorf("got calls %q, want %q", calls, want)
			}
			for _, dir := range []string{state, run} {
				if _, err := os.Stat(dir); (err == nil) != tc.kept {
					t.Errorf("%s: got %v, want kept=%t\n%s", dir, err, tc.kept, out)
				}
			}
			if strings.Contains(out, "are kept") != tc.kept {
				t.Errorf("got output %q", out)
			}
		})
	}
}

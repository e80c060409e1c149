package systemd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stateRoot and stateRun are the directories that a purge of the package removes.
const (
	stateRoot = "/var/lib/criserver"
	stateRun  = "/run/criserver"
)

// TestPackage installs the Debian package by the commands of docs/install.md, upgrades and downgrades it, and
// removes and purges it while a pod runs and when no pod runs. The host must not have an
// installation by hand.
func TestPackage(t *testing.T) {
	if path := property(t, unit, "FragmentPath"); path != "" {
		t.Fatalf("the unit is installed already: %s", path)
	}
	providePlugins(t)
	t.Cleanup(func() { cleanHost(t) })
	since := cursor(t)
	follow(t, "Debian package")
	serving(t, 0)
	if found := complaints(t, since, oldRuntime); len(found) > 0 {
		t.Errorf("the first start logged:\n%s", strings.Join(found, "\n"))
	}
	if enabled := systemctl(t, "is-enabled", unit); enabled != "enabled" {
		t.Errorf("the unit is %s", enabled)
	}
	if timeout := property(t, unit, "WatchdogUSec"); timeout != "2min" {
		t.Errorf("the watchdog of the unit is %s, want 2min", timeout)
	}
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward"); err != nil || strings.TrimSpace(string(b)) != "1" {
		t.Errorf("net.ipv4.ip_forward is %q, %v", b, err)
	}

	c := dial(t)
	c.Pull(t, busybox)
	p := c.runPod(t, podConfig("package"))
	r := &resident{c: c, id: c.RunContainer(t, p, containerConfig(p, "package", "sh", "-c", count))}
	var err error
	if r.process, err = identify(c.ContainerPID(t, r.id)); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name string
		do   func(*testing.T, *resident)
	}{
		{"watchdog", watchdog},
		{"upgrade", upgradePackage},
		{"downgrade", downgradePackage},
		{"upgrade of a disabled unit", upgradeDisabled},
		{"remove", removePackage},
		{"install again", installAgain},
		{"purge with a pod", purgeWithPod},
		{"install after the purge", installAgain},
		{"purge without pods", purgeWithoutPods},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.do(t, r) }) {
			t.FailNow() // the next step needs the state that this step leaves
		}
	}
}

// resident is a container that must survive the steps of TestPackage.
type resident struct {
	c       *client
	id      string
	process process
}

// checkAlive checks that the first process of the container is still the same.
func (r *resident) checkAlive(t *testing.T) {
	t.Helper()
	if now, err := identify(r.process.PID); err != nil || now != r.process {
		t.Fatalf("the process of the container is %v, %v; it was %v", now, err, r.process)
	}
}

// checkServed checks that the daemon manages the container.
func (r *resident) checkServed(t *testing.T) {
	t.Helper()
	r.checkAlive(t)
	r.c.Exec(t, r.id, "true")
}

// watchdog checks that systemd restarts a daemon that does not answer, and no other daemon. It
// shortens the timeout of the unit with a drop-in.
func watchdog(t *testing.T, r *resident) {
	const timeout = 30 * time.Second
	dropIn := "/run/systemd/system/" + unit + ".d/50-watchdog.conf"
	if err := os.MkdirAll(filepath.Dir(dropIn), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dropIn, []byte("[Service]\nWatchdogSec="+timeout.String()+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.Remove(dropIn); err != nil {
			t.Error(err)
		}
		systemctl(t, "daemon-reload")
	}()
	systemctl(t, "daemon-reload")
	before := mainPID(t)
	systemctl(t, "restart", unit)
	serving(t, before)
	before = mainPID(t)
	time.Sleep(timeout + timeout/2)
	if now := mainPID(t); now != before {
		t.Fatalf("systemd restarted a daemon that answers: process %d in place of %d; %s", now, before, unitState())
	}
	if err := unix.Kill(before, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, 3*timeout, func() error {
		if pid := mainPID(t); pid == 0 || pid == before {
			return fmt.Errorf("systemd does not restart a daemon that does not answer: %s", unitState())
		}
		return nil
	})
	serving(t, before)
	r.checkServed(t)
}

// changedConfig is the configuration file of the package, which upgradePackage changes like an administrator.
const (
	changedConfig = "/etc/criserver/criserver.toml"
	configChange  = "\n# changed by the administrator\n"
)

func upgradePackage(t *testing.T, r *resident) {
	b, err := os.ReadFile(changedConfig)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(changedConfig, append(b, configChange...), 0o644); err != nil {
		t.Fatal(err)
	}
	replacePackage(t, r, nextVersion(t))
}

func downgradePackage(t *testing.T, r *resident) { replacePackage(t, r, builtPackage(t)) }

// replacePackage installs another version and checks that the changed configuration and the container are kept.
func replacePackage(t *testing.T, r *resident, file string) {
	t.Helper()
	before := mainPID(t)
	command(t, "dpkg", "-i", file)
	serving(t, before)
	if now, want := installedVersion(t), command(t, "dpkg-deb", "-f", file, "Version"); now != want {
		t.Errorf("version %s is installed, want %s", now, want)
	}
	if b, err := os.ReadFile(changedConfig); err != nil || !strings.HasSuffix(string(b), configChange) {
		t.Errorf("version %s has changed %s: %v", installedVersion(t), changedConfig, err)
	}
	r.checkServed(t)
}

// upgradeDisabled checks that an upgrade does not start a unit that is disabled and stopped.
func upgradeDisabled(t *testing.T, r *resident) {
	systemctl(t, "disable", "--now", unit)
	command(t, "dpkg", "-i", nextVersion(t))
	if state := property(t, unit, "ActiveState"); state != "inactive" {
		t.Errorf("after the upgrade the unit is %s, want inactive", state)
	}
	r.checkAlive(t)
	systemctl(t, "enable", "--now", unit)
	serving(t, 0)
	r.checkServed(t)
}

func removePackage(t *testing.T, r *resident) {
	command(t, "dpkg", "-r", "criserver")
	checkStopped(t)
	for _, path := range []string{"/usr/bin/criserver", "/usr/libexec/criserver"} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
	for _, path := range []string{stateRoot, stateRun, "/etc/criserver/criserver.toml"} {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("the removal must keep %s: %v", path, err)
		}
	}
	r.checkAlive(t)
}

func installAgain(t *testing.T, r *resident) {
	command(t, "dpkg", "-i", builtPackage(t))
	serving(t, 0)
	r.checkServed(t)
}

func purgeWithPod(t *testing.T, r *resident) {
	if out := command(t, "dpkg", "-P", "criserver"); !strings.Contains(out, "are kept") {
		t.Errorf("the purge does not say that it keeps the state:\n%s", out)
	}
	checkStopped(t)
	for _, path := range []string{stateRoot, stateRun} {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("the purge must keep %s while a pod runs: %v", path, err)
		}
	}
	if _, err := os.Lstat("/etc/criserver/criserver.toml"); err == nil {
		t.Error("the purge must remove the configuration file")
	}
	r.checkAlive(t)
}

func purgeWithoutPods(t *testing.T, r *resident) {
	r.c.removeAll(t)
	command(t, "dpkg", "-P", "criserver")
	checkStopped(t)
	for _, path := range []string{stateRoot, stateRun, "/etc/criserver", "/etc/systemd/system/multi-user.target.wants/" + unit} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
	if state := property(t, unit, "LoadState"); state != "not-found" {
		t.Errorf("the unit is %s, want not-found", state)
	}
}

// checkStopped checks that no daemon runs.
func checkStopped(t *testing.T) {
	t.Helper()
	if pid := mainPID(t); pid != 0 {
		t.Errorf("the daemon still runs as process %d", pid)
	}
}

// builtPackage returns the package that `make deb` has built for the architecture of the host.
func builtPackage(t *testing.T) string {
	t.Helper()
	pattern := filepath.Join(top, "bin", "deb", "criserver_*_"+command(t, "dpkg", "--print-architecture")+".deb")
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		t.Fatalf("%s matches %v, %v; run `make deb`", pattern, found, err)
	}
	return found[0]
}

// nextVersion returns a copy of the built package with a newer version.
func nextVersion(t *testing.T) string {
	t.Helper()
	tree, next := filepath.Join(t.TempDir(), "tree"), filepath.Join(t.TempDir(), "next.deb")
	command(t, "dpkg-deb", "-R", builtPackage(t), tree)
	control := filepath.Join(tree, "DEBIAN", "control")
	b, err := os.ReadFile(control)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(b), "\nVersion: ", "\nVersion: 1:", 1) // a new epoch
	if err := os.WriteFile(control, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	command(t, "dpkg-deb", "--root-owner-group", "-Znone", "-b", tree, next)
	return next
}

func installedVersion(t *testing.T) string {
	t.Helper()
	return command(t, "dpkg-query", "-W", "-f", "${Version}", "criserver")
}

// providePlugins installs the CNI plugins and the network of the example, which the package does
// not contain.
func providePlugins(t *testing.T) {
	t.Helper()
	plugins, err := filepath.Glob(filepath.Join(top, "bin", "cni", "*"))
	if err != nil || len(plugins) == 0 {
		t.Fatalf("no CNI plugins in bin/cni: %v", err)
	}
	command(t, "install", "-d", "/opt/cni/bin", "/etc/cni/net.d")
	command(t, "install", append(plugins, "/opt/cni/bin")...)
	command(t, "install", "-m", "644", filepath.Join(top, "docs", "examples", "10-criserver.conflist"), "/etc/cni/net.d")
}

// cleanHost removes what the package leaves on the host: the network, and everything else if the
// test has failed.
func cleanHost(t *testing.T) {
	t.Helper()
	if exec.Command("dpkg-query", "-s", "criserver").Run() == nil {
		t.Log(quietly("dpkg", "-P", "criserver"))
	}
	for _, args := range [][]string{
		{"systemctl", "stop", "criserver.slice"},
		{"systemctl", "reset-failed"},
		{"ip", "link", "delete", "cri0"},
		{"rm", "-f", "/etc/cni/net.d/10-criserver.conflist"},
		{"sh", "-c", `nft list tables | grep -E '_criserver$' | while read -r table; do nft delete $table; done`},
	} {
		if err := quietly(args[0], args[1:]...); err != nil {
			t.Log(err)
		}
	}
}

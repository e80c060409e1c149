package docs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/test/harness"
	"github.com/criserver/criserver/test/images"
)

// machine is the host on which the commands of the pages run: a mount namespace in which writes to the directories of
// the system and to the source tree go to a tmpfs, and a network namespace with an uplink.
type machine struct {
	dir      string // a tmpfs that contains the changes
	tree     string // the source tree, in which the commands run
	registry string // address of the registry of the test images
	before   harness.Snapshot
}

// host is the machine of the run. It is nil with -short.
var host *machine

// stateDirs are the directories in which the pods of a run must leave no files.
var stateDirs = []string{"/run/criserver", "/var/lib/criserver"}

func newMachine(dir string) (*machine, error) {
	m := &machine{dir: dir, tree: filepath.Join(dir, "tree")}
	if err := harness.Tmpfs(dir); err != nil {
		return nil, err
	}
	source, err := filepath.Abs(top)
	if err != nil {
		return nil, err
	}
	for path, lower := range map[string]string{"/etc": "/etc", "/usr": "/usr", "/opt": "/opt", "/var": "/var", m.tree: source} {
		if err := m.overlay(path, lower); err != nil {
			return nil, err
		}
	}
	for _, path := range []string{"/run", "/var/lib/criserver"} {
		if err := harness.Tmpfs(path); err != nil {
			return nil, err
		}
	}
	return m, m.uplink()
}

// overlay mounts a copy of lower on path. Writes to the copy do not change lower.
func (m *machine) overlay(path, lower string) error {
	name := strings.ReplaceAll(path, "/", "_")
	upper, work := filepath.Join(m.dir, "upper", name), filepath.Join(m.dir, "work", name)
	for _, dir := range []string{upper, work, path} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work)
	if err := unix.Mount("overlay", path, "overlay", 0, options); err != nil {
		return fmt.Errorf("mount a copy of %s on %s: %w", lower, path, err)
	}
	return nil
}

// uplink gives the host the interface eth0 with an address of documentation (RFC 5737) and a default route.
func (m *machine) uplink() error {
	_, err := m.bash(`ip link add eth0 type veth peer name switch
ip link set switch up
ip link set eth0 up
ip addr add 192.0.2.10/24 dev eth0
ip route add default via 192.0.2.1`)
	return err
}

// install installs the daemon by the commands of docs/install.md and runs a first pod, which creates objects that
// remain, such as the bridge.
func (m *machine) install(commands string) error {
	files := map[string]string{
		"/etc/resolv.conf": "nameserver 192.0.2.53\nsearch example.com\n",
		"/etc/containers/registries.conf.d/50-criserver-test.conf": images.RegistriesConf(m.registry),
		"/etc/criserver/criserver.toml":                            m.config(),
	}
	for path, content := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	for _, step := range []string{
		"rm -rf /etc/cni && mkdir -p /usr/local/bin && install test/docs/testdata/*ctl /usr/local/bin/ && install bin/runc /usr/local/sbin/",
		commands,
		fmt.Sprintf("sed -i 's/^timeout:.*/timeout: %d/' /etc/crictl.yaml", int(harness.Patience(30*time.Second).Seconds())),
		"crictl pull docker.io/library/busybox:latest && crictl pull docker.io/library/nginx:latest",
	} {
		if _, err := m.bash(step); err != nil {
			return err
		}
	}
	if err := m.pods(); err != nil {
		return err
	}
	if err := m.remove(); err != nil {
		return err
	}
	var err error
	m.before, err = harness.Take(stateDirs, filepath.Base(m.dir), 0)
	return err
}

// config returns the configuration file, which keeps the cgroups of the run apart from the cgroups of the machine.
func (m *machine) config() string {
	return fmt.Sprintf("cgroup_driver = \"cgroupfs\"\ncgroup_parent = \"/%s\"\ndefault_runtime = \"runc\"\n", filepath.Base(m.dir))
}

// bash runs a script in the source tree and returns its output. It returns an error if a command fails.
func (m *machine) bash(script string) (string, error) {
	out, code, err := m.shell("set -euo pipefail\n" + script)
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d of\n%s\n%s", code, script, out)
	}
	return out, err
}

// shell runs a script in the source tree and returns its output and its exit code.
func (m *machine) shell(script string) (string, int, error) {
	// Processes that a script leaves in the background would keep a pipe open.
	out, err := os.CreateTemp(m.dir, "output")
	if err != nil {
		return "", 0, err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience(30*time.Second))
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir = m.tree
	cmd.Env = append(os.Environ(), "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root")
	cmd.Stdout, cmd.Stderr = out, out
	runErr := cmd.Run()
	content, err := os.ReadFile(out.Name())
	if err != nil {
		return "", 0, err
	}
	if ctx.Err() != nil || cmd.ProcessState == nil {
		return string(content), 0, fmt.Errorf("%w\n%s\n%s", runErr, script, content)
	}
	return string(content), cmd.ProcessState.ExitCode(), nil
}

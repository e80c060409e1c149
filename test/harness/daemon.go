package harness

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Daemon is a criserver process with directories that only this run uses.
type Daemon struct {
	CRIU         string            // path of criu; "" for the one that FindCRIU returns
	Bin          string            // directory of criserver, conmon, runc and cni/
	Dir          string            // all files of the daemon are below this directory
	Registries   string            // content of registries.conf
	CgroupParent string            // path of the parent cgroup; with the systemd driver its last element names a slice
	CgroupDriver string            // "" for the one that CgroupDriver returns
	Network      string            // content of the CNI conflist; "" for none
	Config       string            // additional lines of the configuration
	Runtime      string            // default handler; "" for runc
	CNI          string            // additional lines of the section cni
	PluginDirs   []string          // searched for CNI plugins before Bin
	Networks     map[string]string // additional CNI conflists by file name
	NetNS        string            // path of the daemon's network namespace; "" for the caller's
	Output       *os.File          // receives the log of the daemon in place of the file LogPath
	Command      string            // shell command to run in place of criserver, with $HARNESS_DIR and $HARNESS_SOCKET in its environment

	cmd     *exec.Cmd
	exited  chan error // receives the result of Wait
	bridges []string   // names that Bridge was called with
}

// Socket returns the path of the gRPC socket.
func (d *Daemon) Socket() string { return d.path("run", "criserver.sock") }

// NRISocket returns the path of the socket for NRI plugins.
func (d *Daemon) NRISocket() string { return d.path("nri", "nri.sock") }

// LogPath returns the path of the daemon's log.
func (d *Daemon) LogPath() string { return d.path("daemon.log") }

// StateDirs returns the directories in which a run must leave no files.
func (d *Daemon) StateDirs() []string {
	return []string{d.path("run"), d.path("root"), d.path("leases")}
}

// Pid returns the process ID of the daemon.
func (d *Daemon) Pid() int { return d.cmd.Process.Pid }

func (d *Daemon) path(parts ...string) string {
	return filepath.Join(append([]string{d.Dir}, parts...)...)
}

func (d *Daemon) config() string {
	return fmt.Sprintf(`root = %q
run_dir = %q
socket = %q
log_level = "debug"
cgroup_driver = %q
cgroup_parent = %q
default_runtime = %q
nri.socket = %q
%s
[cni]
conf_dirs = [%q]
bin_dirs = [%s]
default_bridge = false
%s

[image]
registries_conf = %q
registries_conf_dir = %q
policy = %q

[monitor]
path = %q

[checkpoint]
criu = %q

[runtimes.runc]
path = %q
`,
		d.path("root"), d.path("run"), d.Socket(), cmp.Or(d.CgroupDriver, os.Getenv(driverVariable), "auto"),
		cgroupName(cmp.Or(d.CgroupDriver, CgroupDriver()), d.CgroupParent), cmp.Or(d.Runtime, "runc"), d.NRISocket(), d.Config,
		d.path("cni"), d.pluginDirs(), d.CNI,
		d.path("registries.conf"), d.path("registries.conf.d"), d.path("policy.json"),
		filepath.Join(d.Bin, "conmon"), cmp.Or(d.CRIU, builtCRIU(d.Bin)), d.runc())
}

// builtCRIU returns the path of the criu of "make tools" if it runs on this machine, and otherwise "", for the criu of
// the host. A guest can lack the libraries of the built one.
func builtCRIU(bin string) string {
	path := filepath.Join(bin, "criu")
	if exec.Command(path, "--version").Run() != nil {
		return ""
	}
	return path
}

// FindCRIU returns the path of the criu that a daemon with these programs uses, or an error that says that there is
// none.
func FindCRIU(bin string) (string, error) {
	path := builtCRIU(bin)
	if path == "" {
		var err error
		if path, err = exec.LookPath("criu"); err != nil {
			return "", fmt.Errorf("neither %s nor a criu in the PATH runs: %w", filepath.Join(bin, "criu"), err)
		}
	}
	if out, err := exec.Command(path, "check").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s does not work on this kernel: %w: %s", path, err, out)
	}
	return path, nil
}

// runc returns the path of the runc under test: the runc in Bin, or the runc of the host if Bin has none, as in
// guests of another architecture.
func (d *Daemon) runc() string {
	built := filepath.Join(d.Bin, "runc")
	if _, err := os.Stat(built); err == nil {
		return built
	}
	if path, err := exec.LookPath("runc"); err == nil {
		return path
	}
	return built
}

func (d *Daemon) pluginDirs() string {
	var quoted []string
	for _, dir := range append(slices.Clone(d.PluginDirs), filepath.Join(d.Bin, "cni")) {
		quoted = append(quoted, fmt.Sprintf("%q", dir))
	}
	return strings.Join(quoted, ", ")
}

// Bridge returns the configuration of a CNI network like the network of `docker run`:
// a bridge with masquerading and host ports. The leases are below the directory
// of the daemon.
func (d *Daemon) Bridge(name string, subnets ...string) string {
	d.bridges = append(d.bridges, name)
	ranges, routes := make([]string, len(subnets)), make([]string, len(subnets))
	for i, s := range subnets {
		ranges[i] = fmt.Sprintf(`[{"subnet": %q}]`, s)
		routes[i] = `{"dst": "0.0.0.0/0"}`
		if strings.Contains(s, ":") {
			routes[i] = `{"dst": "::/0"}`
		}
	}
	return fmt.Sprintf(`{
  "cniVersion": "1.1.0",
  "name": %q,
  "plugins": [
    {
      "type": "bridge", "bridge": %q, "isGateway": true, "ipMasq": true, "hairpinMode": true,
      "ipam": {"type": "host-local", "dataDir": %q, "ranges": [%s], "routes": [%s]}
    },
    {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}
  ]
}
`, name, name, d.path("leases"), strings.Join(ranges, ", "), strings.Join(routes, ", "))
}

// Start writes the configuration, starts the daemon and waits until it serves.
func (d *Daemon) Start(ctx context.Context) error {
	files := map[string]string{
		"config.toml":     d.config(),
		"registries.conf": d.Registries,
		"policy.json":     `{"default": [{"type": "insecureAcceptAnything"}]}`,
	}
	if d.Network != "" {
		files["cni/10-test.conflist"] = d.Network
	}
	for name, content := range d.Networks {
		files[filepath.Join("cni", name)] = content
	}
	for _, dir := range append(d.StateDirs(), d.path("cni")) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for name, content := range files {
		if err := os.WriteFile(d.path(name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return d.Restart(ctx)
}

// Restart starts the daemon again, after Stop or Kill.
func (d *Daemon) Restart(ctx context.Context) error {
	if err := d.exec(); err != nil {
		return fmt.Errorf("start daemon: %w", err)
	}
	if err := d.serving(ctx); err != nil {
		return fmt.Errorf("start daemon: %w\n%s", err, d.LogTail())
	}
	return nil
}

func (d *Daemon) exec() error {
	log, err := os.OpenFile(d.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	d.cmd = exec.Command(filepath.Join(d.Bin, "criserver"), "--config", d.path("config.toml"))
	if d.Command != "" {
		d.cmd = exec.Command("/bin/sh", "-c", "exec "+d.Command)
	}
	// The CNI plugins find nft and other programs in the PATH.
	d.cmd.Env = append(os.Environ(), "HARNESS_DIR="+d.Dir, "HARNESS_SOCKET="+d.Socket())
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if d.Output != nil {
		d.cmd.Stdout, d.cmd.Stderr = d.Output, d.Output
	}
	if err := In(d.NetNS, d.cmd.Start); err != nil {
		return err
	}
	d.exited = make(chan error, 1)
	go func() { d.exited <- d.cmd.Wait() }()
	return nil
}

// serving waits until the socket accepts connections, which it does when the
// daemon has restored its state.
func (d *Daemon) serving(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, Patience(60*time.Second))
	defer cancel()
	for {
		c, err := net.Dial("unix", d.Socket())
		if err == nil {
			err = errors.Join(d.checkPeer(c), c.Close())
		}
		if err == nil {
			return nil
		}
		select {
		case exit := <-d.exited:
			d.exited <- exit
			return fmt.Errorf("the daemon exited: %s", d.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("the daemon does not serve: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// checkPeer returns an error if another process than this daemon accepted the
// connection. A child of a killed daemon holds the socket until its exec.
func (d *Daemon) checkPeer(c net.Conn) error {
	u, ok := c.(*net.UnixConn)
	if !ok || d.Command != "" {
		return nil
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil {
		return cerr
	}
	if err == nil && int(peer.Pid) != d.Pid() {
		err = fmt.Errorf("process %d has the socket", peer.Pid)
	}
	return err
}

// Stop ends the daemon with SIGTERM, as a service manager does.
func (d *Daemon) Stop() error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop daemon: %w", err)
	}
	select {
	case err := <-d.exited:
		if err != nil {
			return fmt.Errorf("stop daemon: exit: %w", err)
		}
		return nil
	case <-time.After(Patience(20 * time.Second)):
		_ = d.cmd.Process.Signal(syscall.SIGQUIT) // the Go runtime writes all goroutines into the log
		select {
		case <-d.exited:
		case <-time.After(5 * time.Second):
			d.Kill()
		}
		return errors.New("stop daemon: the daemon did not exit before the deadline and was killed")
	}
}

// Wait waits until the daemon has exited, and returns how it has ended.
func (d *Daemon) Wait() (*os.ProcessState, error) {
	select {
	case <-d.exited:
		return d.cmd.ProcessState, nil
	case <-time.After(Patience(20 * time.Second)):
		return nil, errors.New("the daemon did not exit before the deadline")
	}
}

// Kill ends the daemon with SIGKILL, like a crash.
func (d *Daemon) Kill() {
	_ = d.cmd.Process.Kill()
	<-d.exited
}

// RemoveNetworks removes the bridges of Bridge and their nftables tables, which
// a daemon leaves for the next one on the same network. Afterwards another daemon
// can use their addresses, and listing all rules remains fast.
func (d *Daemon) RemoveNetworks() error {
	return In(d.NetNS, func() error {
		out, err := exec.Command("nft", "list", "tables").Output()
		if err != nil {
			return fmt.Errorf("list nftables tables: %w", err)
		}
		var errs []error
		for _, name := range d.bridges {
			errs = append(errs, removeNetwork(name, string(out)))
		}
		return errors.Join(errs...)
	})
}

func removeNetwork(name, tables string) error {
	var errs []error
	for line := range strings.Lines(tables) {
		table := strings.Fields(line) // table, family, name
		if len(table) != 3 || !strings.HasSuffix(table[2], "_"+name) {
			continue
		}
		if out, err := exec.Command("nft", "delete", "table", table[1], table[2]).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("remove table %s: %w: %s", table[2], err, out))
		}
	}
	if _, err := os.Stat("/proc/thread-self/net/dev_snmp6/" + name); err != nil {
		return errors.Join(errs...) // the bridge is created with the first pod
	}
	if out, err := exec.Command("ip", "link", "del", name).CombinedOutput(); err != nil {
		errs = append(errs, fmt.Errorf("remove bridge %s: %w: %s", name, err, out))
	}
	return errors.Join(errs...)
}

// LogTail returns the last lines of the daemon's log.
func (d *Daemon) LogTail() string {
	log, err := os.ReadFile(d.LogPath())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(log), "\n"), "\n")
	if len(lines) > 40 {
		lines = lines[len(lines)-40:]
	}
	return "log of the daemon:\n  " + strings.Join(lines, "\n  ")
}

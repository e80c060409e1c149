package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Daemon is a criserver process with directories that only this run uses.
type Daemon struct {
	CRIU         string            // path of criu; "" for the criu that FindCRIU returns
	Bin          string            // directory of criserver, conmon, runc and cni/
	Dir          string            // all files of the daemon are below this directory
	Registries   string            // content of registries.conf
	CgroupParent string            // path of the parent cgroup; with the systemd driver its last element names a slice
	CgroupDriver string            // "" for the driver that CgroupDriver returns
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

// dirVariable is the environment variable of a daemon with its directory.
const dirVariable = "HARNESS_DIR"

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

// path returns the path of a file below the directory of the daemon.
func (d *Daemon) path(parts ...string) string {
	return filepath.Join(append([]string{d.Dir}, parts...)...)
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
	d.cmd.Env = append(os.Environ(), dirVariable+"="+d.Dir, "HARNESS_SOCKET="+d.Socket())
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

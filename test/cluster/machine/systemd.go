package machine

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/test/harness"
)

// units are the units of a machine with systemd, besides those that programs create. None of them has the default
// dependencies, so none of the host's units starts.
var units = map[string]string{
	"node.target": `[Unit]
DefaultDependencies=no
Requires=dbus.service agent.service
`,
	"dbus.socket": `[Unit]
DefaultDependencies=no
[Socket]
ListenStream=/run/dbus/system_bus_socket
`,
	"dbus.service": `[Unit]
DefaultDependencies=no
Requires=dbus.socket
[Service]
Type=notify
NotifyAccess=main
ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation --syslog-only
StandardOutput=null
`,
	// The agent is the program of the test. Its services may create cgroups below the unit.
	"agent.service": `[Unit]
DefaultDependencies=no
After=dbus.service
SuccessAction=exit-force
FailureAction=exit-force
[Service]
ExecStart="%[1]s"
EnvironmentFile=/run/systemd/agent.env
StandardOutput=append:/var/log/agent.log
StandardError=inherit
Delegate=yes
LimitNOFILE=1048576
LimitNPROC=infinity
TasksMax=infinity
`,
}

// systemd is the path of the program on systems whose /lib is a link to /usr/lib, and on those where it is not.
const systemd = "/lib/systemd/systemd"

// becomeSystemd turns the calling process, which is the init process of a machine and has set up its namespaces, into
// systemd. systemd starts the agent. becomeSystemd returns only errors.
func becomeSystemd(s setup) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	s.Agent = true
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll("/run/systemd/system", 0o755); err != nil {
		return err
	}
	// The syntax of the file has quotes like the shell; the text of the setup has no single quotes.
	env := fmt.Sprintf("%s='%s'\nPATH='%s'\nHOME=/root\n%s='%s'\n", stageVariable, text, os.Getenv("PATH"), harness.PatienceVariable, os.Getenv(harness.PatienceVariable))
	if err := os.WriteFile("/run/systemd/agent.env", []byte(env), 0o644); err != nil {
		return err
	}
	for name, unit := range units {
		if name == "agent.service" {
			unit = fmt.Sprintf(unit, program)
		}
		if err := os.WriteFile(filepath.Join("/run/systemd/system", name), []byte(unit), 0o644); err != nil {
			return err
		}
	}
	// The end of the standard output shows that the machine is set up.
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	for fd := range 2 {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return err
		}
	}
	err = unix.Exec(systemd, []string{systemd, "--system", "--unit=node.target", "--show-status=no", "--log-target=kmsg", "--log-level=notice"},
		[]string{"container=criserver-test", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"})
	fmt.Fprintf(os.Stderr, "execute %s: %v\n", systemd, err)
	return err
}

// mountCgroup gives the machine a cgroup namespace, and mounts the hierarchy of cgroup v2 as the namespace shows it:
// its root is the cgroup of the machine. Only the calling thread gets the namespace, so mountCgroup locks the thread.
func mountCgroup() error {
	const dir = "/sys/fs/cgroup"
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("create cgroup namespace: %w", err)
	}
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	if err := unix.Mount("cgroup2", dir, "cgroup2", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	return nil
}

// serveAgent connects to the program that has started the machine, and answers its requests. When serveAgent returns,
// the agent exits, and systemd with it.
func serveAgent(s setup) error {
	conn, err := net.Dial("unix", s.Socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	serve(conn, conn)
	return nil
}

// prepareSystemd writes the files that systemd reads when the machine boots, and listens for the agent.
func prepareSystemd(s setup) (*net.UnixListener, error) {
	name := filepath.Join(s.Etc, "upper", "hostname")
	err := os.WriteFile(name, []byte(s.Hostname+"\n"), 0o644)
	if err := errors.Join(err, os.RemoveAll(s.Socket)); err != nil {
		return nil, err
	}
	return net.ListenUnix("unix", &net.UnixAddr{Name: s.Socket, Net: "unix"})
}

// accept waits until the init process has become systemd, and then for the agent, which answers requests from now on.
func (m *Machine) accept(agent *net.UnixListener) error {
	if _, err := m.receive(); !errors.Is(err, io.EOF) {
		return err
	}
	for end := time.Now().Add(harness.Patience(30 * time.Second)); ; {
		if err := agent.SetDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			return err
		}
		conn, err := agent.Accept()
		if err == nil {
			m.in, m.out = conn, bufio.NewReader(conn)
			return nil
		}
		if m.exited() {
			return errors.New("systemd has ended; the log of the kernel has its messages")
		}
		if time.Now().After(end) {
			return fmt.Errorf("wait for the agent of systemd: %w", err)
		}
	}
}

// exited reports whether the init process has ended.
func (m *Machine) exited() bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, m.Pid(), &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err != nil || info.Signo != 0
}

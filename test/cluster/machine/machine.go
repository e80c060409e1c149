package machine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/test/harness"
)

// Config is the configuration of a machine.
type Config struct {
	Name    string   // hostname
	Dir     string   // directory of /var, which survives Kill, and of the changes of /etc
	Cgroups []string // directories of the cgroups of the services; they exist
	Path    string   // directories that precede the PATH of the services, separated by colons
	Disk    int64    // size in bytes of a file system in memory for /var/lib, which Kill destroys; 0 for the file system of Dir

	// Systemd makes the systemd of the host the init process of the machine, with a system bus. The host must have cgroup
	// v2, and Cgroups one directory: the root of the cgroups that the machine sees, without processes.
	Systemd bool
}

// Machine is a running machine.
type Machine struct {
	Config
	cmd *exec.Cmd
	in  io.WriteCloser

	mu  sync.Mutex // guards in and out: one request at a time
	out *bufio.Reader
}

// Start starts a machine. With the directory of a killed machine, the new machine has the /var of
// the killed one.
func Start(config Config) (*Machine, error) {
	s := setup{
		Hostname: config.Name, Cgroups: config.Cgroups,
		Var: filepath.Join(config.Dir, "var"), Etc: filepath.Join(config.Dir, "etc"), Disk: config.Disk,
		Systemd: config.Systemd, Socket: filepath.Join(config.Dir, "agent"),
	}
	for _, dir := range []string{s.Var, filepath.Join(s.Var, "log"), filepath.Join(s.Var, "lib"), filepath.Join(s.Etc, "upper"), filepath.Join(s.Etc, "work")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.Symlink("/run", filepath.Join(s.Var, "run")); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	m := &Machine{Config: config}
	var agent *net.UnixListener
	if s.Systemd {
		if agent, err = prepareSystemd(s); err != nil {
			return nil, err
		}
		defer agent.Close()
	}
	m.cmd = exec.Command("/proc/self/exe")
	m.cmd.Args[0] = "init of " + config.Name
	m.cmd.Env = append(os.Environ(), stageVariable+"="+string(text), "PATH="+m.path(), "HOME=/root")
	m.cmd.Stderr = os.Stderr
	m.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Setsid:     true,
	}
	if m.in, err = m.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	m.out = bufio.NewReader(out)
	if err := m.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start machine %s: %w", config.Name, err)
	}
	if s.Systemd {
		err = m.accept(agent)
	}
	if err == nil {
		_, err = m.receive()
	}
	if err != nil {
		m.Kill()
		return nil, fmt.Errorf("start machine %s: %w", config.Name, err)
	}
	return m, nil
}

func (m *Machine) path() string { return m.Path + ":" + os.Getenv("PATH") }

// Pid returns the process ID of the init process on the host.
func (m *Machine) Pid() int { return m.cmd.Process.Pid }

// NetNS returns the path of the network namespace on the host.
func (m *Machine) NetNS() string { return fmt.Sprintf("/proc/%d/ns/net", m.Pid()) }

// Kill kills the machine with all of its processes, like a power cut. /var remains.
func (m *Machine) Kill() {
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait() // returns when the kernel has killed all processes of the namespace
	_ = m.in.Close()
}

// receive reads a response.
func (m *Machine) receive() (State, error) {
	line, err := m.out.ReadBytes('\n')
	if err != nil {
		return State{}, fmt.Errorf("init process: %w", err)
	}
	var r response
	if err := json.Unmarshal(line, &r); err != nil {
		return State{}, fmt.Errorf("init process: %w", err)
	}
	if r.Error != "" {
		return r.State, errors.New(r.Error)
	}
	return r.State, nil
}

func (m *Machine) call(r request) (State, error) {
	line, err := json.Marshal(r)
	if err != nil {
		return State{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.in.Write(append(line, '\n')); err != nil {
		return State{}, fmt.Errorf("init process: %w", err)
	}
	return m.receive()
}

// LogPath returns the path of the output of a service on the host.
func (m *Machine) LogPath(service string) string {
	return filepath.Join(m.Dir, "var", "log", service+".log")
}

// restartDelay is the pause before a service that has exited is started again.
const restartDelay = time.Second

// StartService starts a program of the machine. env are additional environment variables. If the service exits, it is
// started again after a second, unless Signal or Stop was called.
func (m *Machine) StartService(name string, env []string, args ...string) error {
	_, err := m.call(request{Op: opStart, Name: name, Args: args, Env: env, Log: "/var/log/" + name + ".log", Delay: restartDelay})
	return err
}

// Signal sends a signal to a service. If the service exits, it is not started again.
func (m *Machine) Signal(service string, signal syscall.Signal) error {
	_, err := m.call(request{Op: opSignal, Name: service, Signal: int(signal)})
	return err
}

// State returns the state of a service.
func (m *Machine) State(service string) (State, error) {
	return m.call(request{Op: opState, Name: service})
}

// Stop sends a signal to a service and waits for its exit.
func (m *Machine) Stop(ctx context.Context, service string, signal syscall.Signal) error {
	if err := m.Signal(service, signal); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, harness.Patience(30*time.Second))
	defer cancel()
	for {
		s, err := m.State(service)
		if err != nil || !s.Running {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("stop %s: %w", service, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// HostPid returns the process ID of a service on the host.
func (m *Machine) HostPid(service string) (int, error) {
	s, err := m.State(service)
	if err != nil {
		return 0, err
	}
	if !s.Running {
		return 0, fmt.Errorf("%s is not running", service)
	}
	return m.translate(s.Pid)
}

// translate returns the process ID on the host of a process of the machine.
func (m *Machine) translate(inner int) (int, error) {
	found, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		return 0, err
	}
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", m.Pid()))
	if err != nil {
		return 0, err
	}
	for _, file := range found {
		dir := filepath.Dir(file)
		if ns, err := os.Readlink(filepath.Join(dir, "ns", "pid")); err != nil || ns != own {
			continue
		}
		status, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if _, rest, ok := bytes.Cut(status, []byte("\nNSpid:")); ok {
			line, _, _ := bytes.Cut(rest, []byte("\n"))
			ids := bytes.Fields(line)
			if string(ids[len(ids)-1]) == strconv.Itoa(inner) {
				return strconv.Atoi(string(ids[0]))
			}
		}
	}
	return 0, fmt.Errorf("process %d of %s does not exist", inner, m.Name)
}

// Command returns a command that runs in all namespaces of the machine.
func (m *Machine) Command(ctx context.Context, args ...string) *exec.Cmd {
	return CommandOn(ctx, m.Pid(), append(os.Environ(), "PATH="+m.path(), "HOME=/root"), args...)
}

// CommandOn returns a command that runs in all namespaces of the machine whose init process is pid.
func CommandOn(ctx context.Context, pid int, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(pid), "-m", "-u", "-i", "-n", "-p", "--"}, args...)...)
	cmd.Env = env
	return cmd
}

// Run runs a command in all namespaces of the machine, and returns its output.
func (m *Machine) Run(ctx context.Context, args ...string) (string, error) {
	out, err := m.Command(ctx, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %v: %w: %s", m.Name, args, err, out)
	}
	return string(out), nil
}

// RunInNetwork runs a command of the host in the network namespace of the machine only.
func (m *Machine) RunInNetwork(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + m.NetNS(), "--"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %v: %w: %s", m.Name, args, err, out)
	}
	return nil
}

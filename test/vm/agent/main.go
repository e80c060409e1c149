// Command agent runs in a guest and executes the commands that the host sends
// over a virtio serial port. See package wire for the messages.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/test/vm/wire"
)

// pause is the time between two attempts to read while the host has not opened its end of the port.
const pause = 50 * time.Millisecond

// portTime limits how long the agent waits for the port, whose name udev makes while the guest boots.
const portTime = 5 * time.Minute

func main() {
	fmt.Fprintln(os.Stderr, "agent:", run())
	os.Exit(1)
}

// openPerfEvent opens an event that counts nothing, and leaves it open. The kernel patches the code of its scheduler
// when the first event of a task is opened, and again when the last one is closed. CRIU opens such events. In a guest
// that is emulated by several threads, the kernel can panic while it patches. While the event of the agent is
// open, the kernel does not patch the scheduler again.
func openPerfEvent() error {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: unix.PERF_ATTR_SIZE_VER0, Config: unix.PERF_COUNT_SW_DUMMY}
	if _, err := unix.PerfEventOpen(&attr, os.Getpid(), -1, -1, unix.PERF_FLAG_FD_CLOEXEC); err != nil {
		return fmt.Errorf("perf_event_open: %w", err)
	}
	return nil
}

// run serves the host. It returns only after an error.
func run() error {
	if err := openPerfEvent(); err != nil {
		return err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	// The descriptor is blocking: epoll reports a port without a host as hung up.
	fd, err := unix.Open(wire.PortPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	for end := time.Now().Add(portTime); errors.Is(err, unix.ENOENT) && time.Now().Before(end); {
		time.Sleep(pause)
		fd, err = unix.Open(wire.PortPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", wire.PortPath, err)
	}
	port := os.NewFile(uintptr(fd), wire.PortPath)
	a := &agent{port: port, boot: strings.TrimSpace(string(boot)), commands: map[string]*command{}}
	a.send(wire.Reply{Boot: a.boot})
	return a.serve(bufio.NewReaderSize(patientReader{port}, 1<<20))
}

// patientReader hides the end of file that a port without a host reports.
type patientReader struct{ io.Reader }

func (r patientReader) Read(b []byte) (int, error) {
	for {
		n, err := r.Reader.Read(b)
		if n > 0 || (err != nil && err != io.EOF) {
			return n, err
		}
		time.Sleep(pause)
	}
}

type agent struct {
	boot string

	sending sync.Mutex // guards port
	port    *os.File

	mu       sync.Mutex // guards commands
	commands map[string]*command
}

type command struct {
	stdin io.WriteCloser
	pid   int
}

func (a *agent) serve(r *bufio.Reader) error {
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("read %s: %w", wire.PortPath, err)
		}
		var req wire.Request
		if err := json.Unmarshal(line, &req); err != nil {
			continue // the rest of a line whose sender was killed
		}
		a.handle(req)
	}
}

func (a *agent) handle(req wire.Request) {
	if req.ID == "" {
		a.send(wire.Reply{Boot: a.boot})
		return
	}
	c := a.command(req.ID)
	if c == nil && len(req.Args) > 0 {
		c = a.start(req)
	}
	if c == nil {
		return // it has ended
	}
	if len(req.In) > 0 {
		_, _ = c.stdin.Write(req.In) // a command may close its stdin
	}
	if req.EOF {
		_ = c.stdin.Close()
	}
	if req.Kill {
		_ = unix.Kill(-c.pid, unix.SIGKILL)
	}
}

func (a *agent) command(id string) *command {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.commands[id]
}

func (a *agent) start(req wire.Request) *command {
	cmd := exec.Command(req.Args[0], req.Args[1:]...)
	cmd.Dir = req.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Env = append(os.Environ(), req.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		a.fail(req.ID, err)
		return nil
	}
	stdout, stdoutEnd, err := os.Pipe()
	if err != nil {
		a.fail(req.ID, err)
		return nil
	}
	stderr, stderrEnd, err := os.Pipe()
	if err != nil {
		a.fail(req.ID, err)
		return nil
	}
	cmd.Stdout, cmd.Stderr = stdoutEnd, stderrEnd
	err = cmd.Start()
	stdoutEnd.Close()
	stderrEnd.Close()
	if err != nil {
		stdout.Close()
		stderr.Close()
		a.fail(req.ID, err)
		return nil
	}
	c := &command{stdin: stdin, pid: cmd.Process.Pid}
	a.mu.Lock()
	a.commands[req.ID] = c
	a.mu.Unlock()

	var copies sync.WaitGroup
	copies.Go(func() { a.copy(stdout, func(b []byte) wire.Reply { return wire.Reply{ID: req.ID, Out: b} }) })
	copies.Go(func() { a.copy(stderr, func(b []byte) wire.Reply { return wire.Reply{ID: req.ID, Err: b} }) })
	go func() {
		_ = cmd.Wait() // ProcessState has the status
		// A process that the command left in the background may hold the pipes: its output is not waited for.
		drained := make(chan struct{})
		go func() { copies.Wait(); close(drained) }()
		select {
		case <-drained:
		case <-time.After(2 * time.Second):
			_ = stdout.SetReadDeadline(time.Unix(1, 0))
			_ = stderr.SetReadDeadline(time.Unix(1, 0))
			<-drained
		}
		a.mu.Lock()
		delete(a.commands, req.ID)
		a.mu.Unlock()
		a.send(wire.Reply{ID: req.ID, Exited: true, Code: code(cmd.ProcessState)})
	}()
	return c
}

func code(s *os.ProcessState) int {
	if ws, ok := s.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return s.ExitCode()
}

func (a *agent) copy(r *os.File, reply func([]byte) wire.Reply) {
	defer r.Close()
	b := make([]byte, wire.MaxData)
	for {
		n, err := r.Read(b)
		if n > 0 {
			a.send(reply(b[:n]))
		}
		if err != nil {
			return
		}
	}
}

func (a *agent) fail(id string, err error) {
	a.send(wire.Reply{ID: id, Exited: true, Code: 127, Failed: err.Error()})
}

func (a *agent) send(r wire.Reply) {
	line, err := json.Marshal(r)
	if err != nil {
		panic(err) // a Reply has no value that JSON does not know
	}
	a.sending.Lock()
	defer a.sending.Unlock()
	// The write waits while the host has not opened its end.
	_, _ = a.port.Write(append(line, '\n'))
}

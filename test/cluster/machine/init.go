package machine

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// initProcess is the first process of a machine, or its agent: it starts services and reaps its children.
type initProcess struct {
	mu       sync.Mutex
	services map[string]*service
}

// service is a service of the machine.
type service struct {
	State
	start   request
	restart bool // whether the service is started again when it exits
}

// serve answers requests until the input ends, which it does when the program that started the machine ends.
func serve(input io.Reader, output io.Writer) {
	p := &initProcess{services: map[string]*service{}}
	// Signals are dropped with a handler, because services would inherit that they are ignored.
	signal.Notify(make(chan os.Signal, 1), unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGPIPE)
	go p.reap()
	out := json.NewEncoder(output)
	in := bufio.NewScanner(input)
	in.Buffer(nil, 1<<20)
	if out.Encode(response{}) != nil { // the machine is set up
		return
	}
	for in.Scan() {
		var r request
		err := json.Unmarshal(in.Bytes(), &r)
		var state State
		if err == nil {
			state, err = p.handle(r)
		}
		answer := response{State: state}
		if err != nil {
			answer.Error = err.Error()
		}
		if out.Encode(answer) != nil {
			return
		}
	}
}

func (p *initProcess) handle(r request) (State, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.services[r.Name]
	switch r.Op {
	case opStart:
		if s != nil && s.Running {
			return s.State, fmt.Errorf("start %s: the service is running", r.Name)
		}
		pid, err := start(r)
		if err != nil {
			return State{}, fmt.Errorf("start %s: %w", r.Name, err)
		}
		p.services[r.Name] = &service{State: State{Running: true, Pid: pid}, start: r, restart: r.Delay > 0}
		return p.services[r.Name].State, nil
	case opSignal:
		if s == nil || !s.Running {
			return State{}, fmt.Errorf("signal %s: the service is not running", r.Name)
		}
		s.restart = false
		return s.State, unix.Kill(s.Pid, unix.Signal(r.Signal))
	case opState:
		if s == nil {
			return State{}, nil
		}
		return s.State, nil
	}
	return State{}, fmt.Errorf("no such operation: %q", r.Op)
}

// start starts the process of a service in a new session. start does not use exec.Cmd, because reap waits for all
// processes.
func start(r request) (pid int, err error) {
	path, err := exec.LookPath(r.Args[0])
	if err != nil {
		return 0, err
	}
	log, err := os.OpenFile(r.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, errors.Join(err, log.Close())
	}
	process, err := os.StartProcess(path, r.Args, &os.ProcAttr{
		Dir: "/", Env: append(os.Environ(), r.Env...), Files: []*os.File{null, log, log}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	err = errors.Join(err, log.Close(), null.Close())
	if process == nil {
		return 0, err
	}
	pid = process.Pid // Release sets it to -1
	return pid, errors.Join(err, process.Release())
}

// reap waits for all children, including the orphans of the machine, and records the exits of services.
func (p *initProcess) reap() {
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	for {
		select {
		case <-children:
		case <-time.After(time.Second):
		}
		p.mu.Lock()
		for {
			var status unix.WaitStatus
			pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil || pid == 0 {
				break
			}
			for _, s := range p.services {
				if s.Running && s.Pid == pid {
					s.Running, s.Status = false, int(status)
					p.startAgain(s)
				}
			}
		}
		p.mu.Unlock()
	}
}

// startAgain starts a service that has exited after its delay, as a service manager does, unless a request
// has signalled or started it.
func (p *initProcess) startAgain(s *service) {
	if !s.restart {
		return
	}
	time.AfterFunc(s.start.Delay, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.services[s.start.Name] != s || s.Running {
			return
		}
		pid, err := start(s.start)
		if err != nil {
			fmt.Fprintf(os.Stderr, "start %s again: %v\n", s.start.Name, err)
			return
		}
		s.Running, s.Pid = true, pid
	})
}

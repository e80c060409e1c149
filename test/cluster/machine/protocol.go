package machine

import (
	"encoding/json"
	"os"
	"time"
)

// stageVariable is the environment variable that makes a program the init process of a machine. Its value is a setup.
const stageVariable = "CRISERVER_TEST_MACHINE"

// setup describes the work of the init process before it serves requests.
type setup struct {
	Hostname string
	Cgroups  []string // directories of the cgroups of the init process
	Var      string   // directory that becomes /var
	Etc      string   // directory with the changes of /etc, and the work directory of the overlay
	Disk     int64    // see Config
	Systemd  bool     // see Config
	Socket   string   // with Systemd: socket of the program that has started the machine
	Agent    bool     // with Systemd: the process is not the init process, but the agent
}

// The operations of the init process.
const (
	opStart  = "start"
	opSignal = "signal"
	opState  = "state"
)

// request is one line on the standard input of the init process, or on the socket of the agent.
type request struct {
	Op     string
	Name   string        // of the service
	Args   []string      // of opStart
	Log    string        // of opStart: file that receives the output
	Env    []string      // of opStart: additional variables
	Signal int           // of opSignal
	Delay  time.Duration // of opStart: pause before the service is started again when it exits; 0 for never again
}

// State is the state of a service.
type State struct {
	Running bool
	Status  int // wait status of the last process, see wait(2)
	Pid     int // in the process namespace of the machine
}

// response is one line on the standard output of the init process, or on the socket of the agent.
type response struct {
	State
	Error string
}

// Main turns this process into the init process or the agent of a machine if it was started for that, and otherwise
// returns. Programs and tests that start machines call Main first.
func Main() {
	text := os.Getenv(stageVariable)
	if text == "" {
		return
	}
	if err := os.Unsetenv(stageVariable); err != nil {
		fail(err)
	}
	var s setup
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		fail(err)
	}
	if s.Agent {
		if err := serveAgent(s); err != nil {
			fail(err)
		}
		os.Exit(0)
	}
	if err := s.apply(); err != nil {
		fail(err)
	}
	if s.Systemd {
		fail(becomeSystemd(s))
	}
	serve(os.Stdin, os.Stdout)
	os.Exit(0)
}

// fail reports an error as the first response, and ends the init process.
func fail(err error) {
	_ = json.NewEncoder(os.Stdout).Encode(response{Error: err.Error()})
	os.Exit(1)
}

// Package program runs the programs of the network, such as CNI plugins and nft: a program ends with
// its context and with the daemon, and its output is limited.
package program

import (
	"bytes"
	"cmp"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	// MaxOutput is the number of bytes that Output keeps unless Limit is set.
	MaxOutput = 1 << 20
	maxQuote  = 2 << 10 // bytes of the output in an error
	// pipeTimeout is the time for which the children of an ended program may keep its pipes open.
	pipeTimeout = 5 * time.Second
)

// Run runs a command that is killed when its context or the daemon ends. The next daemon
// removes pods that were not created completely. A plugin of the earlier daemon that is still
// running could add something to the network afterwards, and nothing would remove it.
func Run(cmd *exec.Cmd) error {
	// The process group includes the processes that the command starts.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = pipeTimeout
	// The kernel sends Pdeathsig when the thread that started the command ends, and other code of the daemon ends
	// threads.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return cmd.Run()
}

// Path returns the path of a program, or its name if it is not installed. The PATH of a service may lack /usr/sbin.
func Path(name string) string {
	for _, n := range []string{name, "/usr/sbin/" + name, "/sbin/" + name} {
		if path, err := exec.LookPath(n); err == nil {
			return path
		}
	}
	return name
}

// Quote returns the beginning of the output of a process.
func Quote(b []byte) string {
	return strings.TrimSpace(string(b[:min(len(b), maxQuote)]))
}

// Output keeps the first bytes up to a limit and discards the rest, so that a program with much
// output does not block. The buffer is not embedded, because io.Copy would call its ReadFrom, which
// has no limit.
type Output struct {
	// Limit is the number of bytes that are kept; 0 is MaxOutput.
	Limit int

	buf       bytes.Buffer
	truncated bool
}

func (b *Output) Write(p []byte) (int, error) {
	room := cmp.Or(b.Limit, MaxOutput) - b.buf.Len()
	if len(p) > room {
		b.truncated = true
	}
	b.buf.Write(p[:min(len(p), room)])
	return len(p), nil
}

// Bytes returns the bytes that were kept.
func (b *Output) Bytes() []byte { return b.buf.Bytes() }

// Truncated reports whether bytes were discarded.
func (b *Output) Truncated() bool { return b.truncated }

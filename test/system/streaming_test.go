package system

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"k8s.io/client-go/tools/remotecommand"

	"github.com/criserver/criserver/test/harness"
)

func TestExecStreams(t *testing.T) {
	n := newNode(t, "exec", 71)
	p := n.RunPod(t, podConfig("exec"))
	id := n.run(t, p, "main", "sleep", "10000")
	for transport := range executors {
		t.Run(transport, func(t *testing.T) {
			for script, want := range map[string]struct {
				stdin, stdout, stderr string
				code                  int
			}{
				"echo out; echo err >&2; exit 3": {"", "out\n", "err\n", 3},
				"wc -c":                          {strings.Repeat("x", 3_000_000), "3000000\n", "", 0},
				"head -c 1; exit 9":              {strings.Repeat("x", 3_000_000), "x", "", 9},
				"kill -9 $$":                     {"", "", "", 137},
				"cat":                            {strings.Repeat("line\n", 300_000), strings.Repeat("line\n", 300_000), "", 0},
			} {
				var stdout, stderr text
				code, err := n.stream(t.Context(), t, transport, id,
					remotecommand.StreamOptions{Stdin: strings.NewReader(want.stdin), Stdout: &stdout, Stderr: &stderr}, "sh", "-c", script)
				if err != nil || code != want.code || stdout.String() != want.stdout || stderr.String() != want.stderr {
					t.Errorf("%s: got code %d, %d bytes of stdout, stderr %q (error %v), want code %d, %d bytes, stderr %q",
						script, code, len(stdout.String()), stderr.String(), err, want.code, len(want.stdout), want.stderr)
				}
			}
			var out text
			_, err := n.stream(t.Context(), t, transport, id, remotecommand.StreamOptions{Stdout: &out}, "/no/such/program")
			if err == nil || !strings.Contains(err.Error(), "/no/such/program") {
				t.Errorf("exec of a missing program: got error %v, want one that names the program", err)
			}
			n.terminal(t, transport, id)
			n.disconnectClient(t, transport, id)
		})
	}
}

// sizeQueue is the size of a terminal that is resized.
type sizeQueue chan remotecommand.TerminalSize

func (q sizeQueue) Next() *remotecommand.TerminalSize {
	s, ok := <-q
	if !ok {
		return nil
	}
	return &s
}

// terminal checks the size, the interrupt key and the exit code of a command with a terminal.
func (n *node) terminal(t *testing.T, transport, id string) {
	t.Helper()
	in, keys := io.Pipe()
	defer keys.Close()
	sizes := make(sizeQueue, 1)
	defer close(sizes)
	sizes <- remotecommand.TerminalSize{Width: 91, Height: 33}
	var out text
	ended := make(chan error, 1)
	go func() {
		code, err := n.stream(t.Context(), t, transport, id,
			remotecommand.StreamOptions{Stdin: in, Stdout: &out, Tty: true, TerminalSizeQueue: sizes}, "sh")
		if err == nil && code != 4 {
			err = fmt.Errorf("exit code %d, want 4", code)
		}
		ended <- err
	}()
	for end := time.Now().Add(harness.Patience(15 * time.Second)); !strings.Contains(out.String(), "33 91"); {
		if time.Now().After(end) {
			t.Fatalf("output of stty: got %q, want size 33 91", out.String())
		}
		if _, err := io.WriteString(keys, "stty size\n"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if _, err := io.WriteString(keys, "echo be''gin; sleep 1000\n"); err != nil {
		t.Fatal(err)
	}
	out.wait(t, "begin")
	// The shell may not have started the sleep yet.
	for end := time.Now().Add(harness.Patience(30 * time.Second)); time.Now().Before(end); {
		if _, err := io.WriteString(keys, "\x03"); err != nil && !errors.Is(err, errStreamEnded) {
			t.Fatal(err)
		}
		if _, err := io.WriteString(keys, "exit 4\n"); err != nil && !errors.Is(err, errStreamEnded) {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("exec with a terminal: got error %v, output %q, want no error", err, out.String())
			}
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
	t.Fatalf("shell has not exited at the deadline: output %q", out.String())
}

// disconnectClient checks that the processes of a command end when its client disconnects.
func (n *node) disconnectClient(t *testing.T, transport, id string) {
	t.Helper()
	ctx, disconnect := context.WithCancel(t.Context())
	var out text
	ended := make(chan error, 1)
	go func() {
		_, err := n.stream(ctx, t, transport, id, remotecommand.StreamOptions{Stdout: &out}, "sh", "-c", "sleep 4321 & trap '' HUP TERM; echo up; sleep 4322")
		ended <- err
	}()
	out.wait(t, "up")
	disconnect()
	<-ended
	for end := time.Now().Add(harness.Patience(30 * time.Second)); ; time.Sleep(20 * time.Millisecond) {
		remaining := n.Exec(t, id, "sh", "-c", "pgrep -f 'sleep 432[12]' || true")
		if remaining == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("processes of the command after its client disconnected: got %s, want none", remaining)
		}
	}
}

func TestAttachToRunningContainer(t *testing.T) {
	n := newNode(t, "attach", 72)
	p := n.RunPod(t, podConfig("attach"))
	for transport := range executors {
		t.Run(transport, func(t *testing.T) {
			config := containerConfig(p, strings.ToLower(transport), busybox, "sh", "-c", "while read x; do echo got $x; done; echo end; sleep 1; exit 3")
			config.Stdin, config.StdinOnce = true, true
			id := n.CreateContainer(t, p, config)
			n.StartContainer(t, id)
			attach := func(ctx context.Context, o remotecommand.StreamOptions) chan error {
				r, err := n.RuntimeService.Attach(t.Context(), &cri.AttachRequest{ContainerId: id, Stdin: o.Stdin != nil, Stdout: true})
				if err != nil {
					t.Fatal(err)
				}
				ended := make(chan error, 1)
				go func() {
					_, err := join(ctx, transport, r.GetUrl(), o)
					ended <- err
				}()
				return ended
			}
			var seen, out text
			ctx, disconnect := context.WithCancel(t.Context())
			outputClient := attach(ctx, remotecommand.StreamOptions{Stdout: &seen})
			in, keys := io.Pipe()
			inputClient := attach(t.Context(), remotecommand.StreamOptions{Stdin: in, Stdout: &out})
			end := time.Now().Add(harness.Patience(15 * time.Second))
			for i := 0; !strings.Contains(seen.String(), "got") || !strings.Contains(out.String(), "got"); i++ {
				if time.Now().After(end) {
					t.Fatalf("output at the deadline: got %q and %q, want an echoed line at both clients", seen.String(), out.String())
				}
				if _, err := fmt.Fprintln(keys, i); err != nil {
					t.Fatal(err)
				}
				time.Sleep(50 * time.Millisecond)
			}
			disconnect()
			<-outputClient
			if s := n.ContainerStatus(t, id); s.GetState() != cri.ContainerState_CONTAINER_RUNNING {
				t.Errorf("state of the container after a client has disconnected: got %s, want running", s.GetState())
			}
			_ = keys.Close()
			if err := <-inputClient; err != nil {
				t.Errorf("attach at the exit of the container: got error %v, want none", err)
			}
			if !strings.HasSuffix(out.String(), "end\n") {
				t.Errorf("output of attach: got %q, want it to end with \"end\\n\"", out.String())
			}
			if s := n.WaitExited(t, id); s.GetExitCode() != 3 {
				t.Errorf("exit code of the container: got %d, want 3", s.GetExitCode())
			}
		})
	}
}

// TestStreamsAfterDaemonKill checks that a kill of the daemon with open streams does not
// affect containers, and that the next daemon serves streams.
func TestStreamsAfterDaemonKill(t *testing.T) {
	n := newNode(t, "streamkill", 74)
	p := n.RunPod(t, podConfig("streamkill"))
	config := containerConfig(p, "main", busybox, "sh", "-c", "while read x; do echo got $x; done")
	config.Stdin = true
	id := n.CreateContainer(t, p, config)
	n.StartContainer(t, id)
	for _, tty := range []bool{false, true} {
		in, keys := io.Pipe()
		var out text
		ended := make(chan error, 1)
		go func() {
			_, err := n.stream(t.Context(), t, "SPDY", id, remotecommand.StreamOptions{Stdin: in, Stdout: &out, Tty: tty}, "sh", "-c", "echo up; cat >/dev/null")
			ended <- err
		}()
		out.wait(t, "up")
		n.Kill()
		<-ended
		_ = keys.Close()
		n.restart(t)
		if s := n.ContainerStatus(t, id); s.GetState() != cri.ContainerState_CONTAINER_RUNNING {
			t.Fatalf("state of the container: got %s, want running", s.GetState())
		}
		for end := time.Now().Add(harness.Patience(30 * time.Second)); n.Exec(t, id, "sh", "-c", "pgrep cat || true") != ""; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the command still runs after the daemon was killed")
			}
		}
	}
	in, keys := io.Pipe()
	r, err := n.RuntimeService.Attach(t.Context(), &cri.AttachRequest{ContainerId: id, Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	var out text
	ctx, disconnect := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := join(ctx, "SPDY", r.GetUrl(), remotecommand.StreamOptions{Stdin: in, Stdout: &out})
		ended <- err
	}()
	if _, err := io.WriteString(keys, "hello\n"); err != nil {
		t.Fatal(err)
	}
	out.wait(t, "got hello")
	disconnect()
	_ = keys.Close()
	<-ended
}

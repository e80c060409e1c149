package cluster

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/criserver/criserver/test/harness"
)

// TestStreams checks the ways into a container through the API server, the kubelet and the runtime.
func TestStreams(t *testing.T) {
	s := newSpace(t)
	s.apply(
		sleeper("target", "node1", "", ""),
		web("web", "node2", "", ""),
		podOf("reader", "node1", "", container("main", busybox, `echo ready; while read -r line; do echo "got $line"; done; sleep 1000`, `"stdin": true`)),
		podOf("writer", "node2", "", container("main", busybox, `i=0; while :; do i=$((i+1)); echo "line $i"; sleep 0.02; done`, "")),
	)
	s.ready("target", "web", "reader", "writer")
	for name, test := range map[string]func(space){
		"exec": checkExec, "exec with a terminal": checkTerminal, "attach": checkAttach, "logs": checkLogs,
		"port forwarding under load": checkPortForward, "copy of 100 MB": checkCopy,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(space{t, s.name})
		})
	}
}

// checkExec checks exit codes, both output streams, and a large standard input.
func checkExec(s space) {
	cmd := suite.KubectlCommand(s.Context(), "-n", s.name, "exec", "-i", "target", "--", "sh", "-c", "cat; echo problem >&2; exit 42")
	in := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 42 {
		s.Errorf("exit of the command: %v, want 42", err)
	}
	if !bytes.Equal(out.Bytes(), in) {
		s.Errorf("1 MiB through cat: %d bytes", out.Len())
	}
	if !strings.HasPrefix(errs.String(), "problem\n") {
		s.Errorf("standard error stream: %q", errs.String())
	}
}

// checkTerminal runs kubectl exec -it below script(1), which gives it a terminal. kubectl sends the size of the
// terminal when the command has started, so the command waits for the size.
func checkTerminal(s space) {
	script := fmt.Sprintf("tty; i=0; until [ $i = %d ] || stty size 2>/dev/null | grep -q 33; do i=$((i+1)); sleep 0.1; done; stty size", harness.PatienceSeconds(100))
	command := fmt.Sprintf("%s -n %s exec -it target -- sh -c '%s'", suite.program("kubectl"), s.name, script)
	cmd := suite.KubectlCommand(s.Context(), "version") // for its environment
	cmd.Path, cmd.Args = "/usr/bin/script", []string{"script", "-q", "-e", "-c", "stty rows 33 cols 77; " + command, "/dev/null"}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "/dev/pts/") || !strings.Contains(string(out), "33 77") {
		s.Errorf("terminal: %v: %q", err, out)
	}
}

// checkAttach writes to the standard input of a container and reads its answer.
func checkAttach(s space) {
	ctx, cancel := context.WithTimeout(s.Context(), harness.Patience(30*time.Second))
	defer cancel()
	cmd := suite.KubectlCommand(ctx, "-n", s.name, "attach", "-i", "reader")
	in, err := cmd.StdinPipe()
	if err != nil {
		s.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	// Lines before the attachment are lost, so the test writes until an answer arrives.
	go func() {
		for i := 0; ctx.Err() == nil; i++ {
			if _, err := fmt.Fprintf(in, "message %d\n", i); err != nil {
				return
			}
			time.Sleep(200 * time.Millisecond)
		}
	}()
	found := false
	for lines := bufio.NewScanner(out); !found && lines.Scan(); {
		found = strings.HasPrefix(lines.Text(), "got message ")
	}
	cancel()
	_ = cmd.Wait() // killed
	if !found {
		s.Error("no answer from the attached container")
	}
}

// checkLogs follows a log and checks that no line is missing or repeated.
func checkLogs(s space) {
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	cmd := suite.KubectlCommand(ctx, "-n", s.name, "logs", "-f", "writer")
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for i := 1; i <= 500; i++ {
		if !lines.Scan() || lines.Text() != fmt.Sprintf("line %d", i) {
			s.Errorf("line %d of the log: %q, %v", i, lines.Text(), lines.Err())
			break
		}
	}
	cancel()
	_ = cmd.Wait() // killed
	if got := s.kubectl("logs", "--tail=1", "--timestamps", "writer"); !strings.Contains(got, "Z line ") {
		s.Errorf("last line with its time: %q", got)
	}
}

// checkPortForward sends many requests at the same time through one forwarded port.
func checkPortForward(s space) {
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	cmd := suite.KubectlCommand(ctx, "-n", s.name, "port-forward", "pod/web", ":80")
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		s.Fatal("kubectl port-forward has no output")
	}
	_, rest, _ := strings.Cut(lines.Text(), "127.0.0.1:")
	port, _, _ := strings.Cut(rest, " ")
	go io.Copy(io.Discard, out)
	client := http.Client{Timeout: harness.Patience(20 * time.Second), Transport: &http.Transport{DisableKeepAlives: true}}
	errs := make([]error, 20)
	var group sync.WaitGroup
	for i := range errs {
		group.Go(func() {
			for range 25 {
				response, err := client.Get("http://127.0.0.1:" + port + "/")
				if err == nil {
					var text []byte
					text, err = io.ReadAll(response.Body)
					err = errors.Join(err, response.Body.Close())
					if err == nil && string(text) != "web\n" {
						err = fmt.Errorf("page: %q", text)
					}
				}
				errs[i] = errors.Join(errs[i], err)
			}
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		s.Errorf("500 requests: %v", err)
	}
	cancel()
	_ = cmd.Wait() // killed
}

// checkCopy copies 100 MB into a container and back.
func checkCopy(s space) {
	size := 100_000_000
	if testing.Short() {
		size = 10_000_000
	}
	data := make([]byte, size)
	_, _ = rand.Read(data) // never returns an error
	dir := s.TempDir()
	file, back := filepath.Join(dir, "data"), filepath.Join(dir, "back")
	if err := os.WriteFile(file, data, 0o644); err != nil {
		s.Fatal(err)
	}
	s.kubectl("cp", file, "target:/tmp/data")
	s.kubectl("cp", "target:/tmp/data", back)
	got, err := os.ReadFile(back)
	if err != nil || !bytes.Equal(got, data) {
		s.Errorf("copy of %d bytes: %d bytes, %v", len(data), len(got), err)
	}
	s.sh("target", "rm /tmp/data")
}

package cli

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// waitForSignals makes the test binary wait for signals as a command does: see TestSecondSignal.
const waitForSignals = "CRISERVER_TEST_WAIT_FOR_SIGNALS"

func TestMain(m *testing.M) {
	if os.Getenv(waitForSignals) != "" {
		ctx := stopContext()
		_, _ = os.Stdout.WriteString("ready\n")
		<-ctx.Done()
		_, _ = os.Stdout.WriteString("stopping\n")
		select {} // an operation that does not end
	}
	os.Exit(m.Run())
}

// TestSecondSignal checks that the first signal ends the context and the second one the process,
// also if the process was started with the signal ignored.
func TestSecondSignal(t *testing.T) {
	for name, tc := range map[string]struct {
		signal  syscall.Signal
		command string
		code    int // exit code, or -1 for the end by the signal
	}{
		"SIGTERM":        {syscall.SIGTERM, `exec "$0"`, -1},
		"SIGINT":         {syscall.SIGINT, `exec "$0"`, -1},
		"ignored SIGINT": {syscall.SIGINT, `trap "" INT; exec "$0"`, 130},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("/bin/sh", "-c", tc.command, os.Args[0])
			cmd.Env = append(os.Environ(), waitForSignals+"=1")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"ready\n", "stopping\n"} {
				b := make([]byte, len(want))
				if _, err := out.Read(b); err != nil || !strings.Contains(string(b), strings.TrimSpace(want)) {
					t.Fatalf("output %q, %v; want %q", b, err, want)
				}
				if err := cmd.Process.Signal(tc.signal); err != nil {
					t.Fatal(err)
				}
			}
			_ = cmd.Wait()
			ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if !ok || tc.code < 0 && (!ws.Signaled() || ws.Signal() != tc.signal) || tc.code >= 0 && ws.ExitStatus() != tc.code {
				t.Errorf("the process ended with %s, want %s or exit code %d", cmd.ProcessState, tc.signal, tc.code)
			}
		})
	}
}

package server

import (
	"bytes"
	"context"
	"math"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
)

// speaker is a Containers whose commands write what the test says. It notes the
// timeouts that it is given.
type speaker struct {
	Containers
	result  container.ExecResult
	timeout time.Duration
}

func (s *speaker) ExecSync(_ context.Context, _ string, _ []string, timeout time.Duration) (container.ExecResult, error) {
	s.timeout = timeout
	return s.result, nil
}

func (s *speaker) Stop(_ context.Context, _ string, timeout time.Duration) error {
	s.timeout = timeout
	return nil
}

// The answer to ExecSync has the beginning of an output that is too long.
func TestExecSyncOutputIsCut(t *testing.T) {
	const full, framing = maxMessage, 2*(1+4) + 1 + 1 // tags and lengths, and the exit code 7
	const room = full - framing
	for name, tc := range map[string]struct{ out, errs, wantOut, wantErrs int }{
		"small":                 {10, 20, 10, 20},
		"as much as fits":       {room, 0, room, 0},
		"one byte more":         {room + 1, 0, room, 0},
		"all that is kept":      {full, 0, room, 0},
		"all on stderr":         {0, full, 0, room},
		"both too long":         {full, full, room / 2, room - room/2},
		"together too long":     {9_000_000, 9_000_000, room / 2, room - room/2},
		"stderr is the shorter": {full, 1000, room - 1000, 1000},
		"stdout is the shorter": {1000, full, 1000, room - 1000},
	} {
		t.Run(name, func(t *testing.T) {
			said := container.ExecResult{Stdout: bytes.Repeat([]byte("o"), tc.out), Stderr: bytes.Repeat([]byte("e"), tc.errs), ExitCode: 7}
			client := serve(t, Config{Containers: &speaker{result: said}})
			r, err := client.ExecSync(t.Context(), &cri.ExecSyncRequest{ContainerId: "x", Cmd: []string{"y"}})
			if err != nil {
				t.Fatal(err)
			}
			if len(r.GetStdout()) != tc.wantOut || len(r.GetStderr()) != tc.wantErrs || r.GetExitCode() != 7 {
				t.Errorf("%d and %d bytes, exit code %d; want %d, %d, 7", len(r.GetStdout()), len(r.GetStderr()), r.GetExitCode(), tc.wantOut, tc.wantErrs)
			}
			if !bytes.HasPrefix(said.Stdout, r.GetStdout()) || !bytes.HasPrefix(said.Stderr, r.GetStderr()) {
				t.Error("the output is not the beginning of what the command wrote")
			}
		})
	}
}

// A number of seconds that a Duration cannot hold is a long time, and not none.
func TestLongTimeouts(t *testing.T) {
	const overflow = math.MaxInt64/int64(time.Second) + 1
	for seconds, want := range map[int64]time.Duration{
		-1: 0, 0: 0, 30: 30 * time.Second,
		overflow - 1: time.Duration(overflow-1) * time.Second, overflow: math.MaxInt64, math.MaxInt64: math.MaxInt64,
		2 * overflow: math.MaxInt64, // would wrap to a small positive number
	} {
		f := &speaker{}
		s := New(Config{Containers: f})
		if _, err := s.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: "x", Timeout: seconds}); err != nil || f.timeout != want {
			t.Errorf("stop with %d s: %s, %v; want %s", seconds, f.timeout, err, want)
		}
		if seconds < 0 {
			continue // refused
		}
		if _, err := s.ExecSync(t.Context(), &cri.ExecSyncRequest{ContainerId: "x", Cmd: []string{"y"}, Timeout: seconds}); err != nil || f.timeout != want {
			t.Errorf("exec with %d s: %s, %v; want %s", seconds, f.timeout, err, want)
		}
	}
}

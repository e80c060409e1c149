package runtime

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestLogError(t *testing.T) {
	for log, want := range map[string]string{
		"":                              "",
		"not json":                      "",
		`{"level":"warning","msg":"w"}`: "",
		`{"level":"error","msg":"first"}` + "\n" + `{"level":"error","msg":"last"}`:  "last",
		`{"msg":"crun \u001b[31mred\nline","level":"error","time":"x"}`:              "crun [31mred line",
		`{"level":"error","msg":"a"}` + "\n" + `{"level":"debug","msg":"b"}` + "\n{": "a",
	} {
		if got := LogError([]byte(log)); got != want {
			t.Errorf("%s: %q", log, got)
		}
	}
	long := `{"level":"error","msg":"` + strings.Repeat("ä", maxErrorText) + `"}`
	if got := LogError([]byte(long)); len(got) > maxErrorText+len("…") {
		t.Errorf("%d bytes", len(got))
	}
}

func FuzzLogError(f *testing.F) {
	f.Add([]byte(`{"level":"error","msg":"x"}`))
	f.Fuzz(func(t *testing.T, log []byte) {
		if s := LogError(log); len(s) > maxErrorText+len("…") || strings.ContainsAny(s, "\n\x00\x1b") {
			t.Errorf("%q", s)
		}
	})
}

func TestLimitedBuffer(t *testing.T) {
	text := bytes.Repeat([]byte("0123456789"), 10000)
	for _, limit := range []int{0, 1, 511, 512, 513, 40000, 200000} {
		b := &limitedBuffer{limit: limit}
		n, err := b.ReadFrom(bytes.NewReader(text))
		if want := text[:min(limit, len(text))]; n != int64(len(text)) || err != nil || !bytes.Equal(b.data, want) {
			t.Errorf("limit %d: read %d, kept %d, %v", limit, n, len(b.data), err)
		}
		b = &limitedBuffer{limit: limit}
		if _, err := io.Copy(struct{ io.Writer }{b}, bytes.NewReader(text)); err != nil || len(b.data) != min(limit, len(text)) {
			t.Errorf("limit %d written: kept %d, %v", limit, len(b.data), err)
		}
	}
}

// TestErrorsQuoteTheRuntime checks that a command that fails is reported in the runtime's own
// words, from its log or else from its standard error.
func TestErrorsQuoteTheRuntime(t *testing.T) {
	for name, tc := range map[string]struct{ script, want string }{
		"log":     {`echo '{"level":"error","msg":"said in log"}' >&3; echo noise >&2; exit 1`, "fake start: said in log: exit status 1"},
		"stderr":  {`echo said on stderr >&2; exit 2`, "fake start: said on stderr: exit status 2"},
		"nothing": {`exit 3`, "fake start: exit status 3"},
	} {
		r := fakeRuntime(t, tc.script)
		if err := r.Start(t.Context(), "id"); err == nil || err.Error() != tc.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCallEndsWithContext(t *testing.T) {
	r := fakeRuntime(t, "exec sleep 1000")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.Start(ctx, "id"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestUpdateHandsResourcesOver(t *testing.T) {
	out := filepath.Join(t.TempDir(), "seen")
	r := fakeRuntime(t, "cat /proc/self/fd/4 > "+out+"; echo \"$@\" >> "+out)
	shares := uint64(5)
	if err := r.Update(t.Context(), "id", &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: &shares}}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if err != nil || !strings.Contains(string(got), `{"shares":5}`) || !strings.Contains(string(got), "update --resources /proc/self/fd/4 id") {
		t.Errorf("%s, %v", got, err)
	}
}

func fakeRuntime(t *testing.T, script string) *Runtime {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fake")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return &Runtime{Name: "fake", Path: path, Root: filepath.Join(t.TempDir(), "root")}
}

package runtime

import (
	"os"
	"strings"
	"testing"

	"github.com/criserver/criserver/conmon/wire"
)

func TestRuntimeFailure(t *testing.T) {
	t.Chdir(t.TempDir())
	long := strings.Repeat("é", maxErrorText)
	tests := []struct{ name, log, output, want string }{
		{"the last error", `{"level":"error","msg":"first"}` + "\n" + `{"level":"error","msg":"second "}` + "\n" + `{"level":"info","msg":"bye"}` + "\n\n", "x", "second"},
		{"no error in the log", `{"level":"info","msg":"hello"}`, "output", "exit status 1: output"},
		{"not JSON", "panic: oh\n", "output", "exit status 1: output"},
		{"no message", "", "", "exit status 1"},
	}
	for _, tt := range tests {
		if err := os.WriteFile(wire.RuntimeLog, []byte(tt.log), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := Failure(tt.output, "exit status 1", make([]byte, 64<<10)); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	if got := truncateStart(long); len(got) > maxErrorText+4 || strings.ToValidUTF8(got, "") != got {
		t.Errorf("truncated to %d bytes", len(got))
	}
	var output Tail
	for range 100 {
		output.Add([]byte(strings.Repeat("x", 1000) + "end"))
	}
	if len(output.b) != maxOutputTail || !strings.HasSuffix(output.Text(), "end") {
		t.Errorf("tail of %d bytes", len(output.b))
	}
}

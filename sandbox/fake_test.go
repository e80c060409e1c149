package sandbox

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const fakeConf = `{"cniVersion":"1.1.0","name":"fake","plugins":[{"type":"fake"}]}`

// fakePlugin controls the CNI plugin testdata/plugin.sh, which has its state in dir.
type fakePlugin struct {
	t   testing.TB
	dir string
}

// fakeBed returns a testbed with the fake CNI plugin.
func fakeBed(t testing.TB) (*bed, fakePlugin) {
	t.Helper()
	p := fakePlugin{t, t.TempDir()}
	script, err := os.ReadFile("testdata/plugin.sh")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "fake"), script, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if pods, _ := os.ReadDir(filepath.Join(p.dir, "attached")); len(pods) > 0 {
			t.Errorf("%d pods are still attached", len(pods))
		}
	})
	return newBed(t, fakeConf, p.dir), p
}

// fail lets the next calls of a command fail.
func (p fakePlugin) fail(command string, times int) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, "fail-"+command), []byte(strconv.Itoa(times)), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// hold blocks the calls of a command until release is called.
func (p fakePlugin) hold(command string) (release func()) {
	p.t.Helper()
	file := filepath.Join(p.dir, "hold-"+command)
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		p.t.Fatal(err)
	}
	return func() { _ = os.Remove(file) }
}

// calls returns the number of calls of a command.
func (p fakePlugin) calls(command string) int {
	b, _ := os.ReadFile(filepath.Join(p.dir, "calls"))
	return strings.Count("\n"+string(b), "\n"+command+" ")
}

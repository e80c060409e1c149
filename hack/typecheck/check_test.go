package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// portable compiles on 64-bit Linux, except for the system call that only amd64
// has, and the constant that a 32-bit int cannot hold.
const portable = `package portable

import "syscall"

const big int = 1 << 40

func call() { _, _, _ = syscall.RawSyscall(syscall.SYS_POLL, 0, 0, 0) }
`

func TestCheckReportsWhatAnArchitectureLacks(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, content := range map[string]string{
		"go.mod": "module portable\n\ngo 1.26.0\n", "portable.go": portable,
		"portable_test.go": "package portable\n\nimport \"testing\"\n\nfunc Test(t *testing.T) { call(); t.Log(missing) }\n",
	} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for arch, want := range map[string][]string{
		"amd64": {"undefined: missing"},
		"arm64": {"undefined: syscall.SYS_POLL", "undefined: missing"},
		"386":   {"overflows", "undefined: missing"},
	} {
		err := checkArch(arch, "", []string{"./..."})
		if err == nil {
			t.Errorf("%s: no error", arch)
			continue
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want %q in it", arch, err, w)
			}
		}
		if arch == "amd64" && strings.Contains(err.Error(), "SYS_POLL") {
			t.Errorf("amd64: %v", err)
		}
	}
	if err := os.Remove(filepath.Join(".", "portable_test.go")); err != nil {
		t.Fatal(err)
	}
	if err := checkArch("amd64", "", []string{"./..."}); err != nil {
		t.Errorf("a package without errors: %v", err)
	}
}

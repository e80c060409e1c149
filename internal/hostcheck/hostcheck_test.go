package hostcheck

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestGroups(t *testing.T) {
	b := newBed(t)
	b.kernel.noSync, b.kernel.missing = true, []string{"openat2"}
	if got := ids(b.check("system")); !slices.Equal(got, []string{"system.clock_sync"}) {
		t.Errorf("findings of the group system: %v", got)
	}
	if got := b.check(); len(got) != 2 || got[0].Severity != Error || got[0].Group != "kernel" || got[0].Reason == "" || got[0].Remedy == "" {
		t.Errorf("findings of all groups: %+v, want the error first", got)
	}
	if _, err := Check(t.Context(), Host{}, Options{}, "disk"); err == nil || !strings.Contains(err.Error(), `"disk"`) {
		t.Errorf("unknown group: got %v", err)
	}
}

// TestKinds checks that the kinds are complete and belong to groups.
func TestKinds(t *testing.T) {
	seen := make(map[string]bool)
	for _, k := range Kinds() {
		group, _, _ := strings.Cut(k.ID, ".")
		if seen[k.ID] || !slices.Contains(Groups(), group) || k.Severity.rank() < 0 || k.Reason == "" || k.Remedy == "" {
			t.Errorf("kind %+v is not complete, or exists twice", k)
		}
		seen[k.ID] = true
	}
}

// TestDocumentation checks that the documentation has the table of all kinds.
func TestDocumentation(t *testing.T) {
	page, err := os.ReadFile("../../docs/host-check.md")
	if err != nil {
		t.Fatal(err)
	}
	var table bytes.Buffer
	if err := Reference(&table); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(page, table.Bytes()) {
		t.Errorf("docs/host-check.md does not have this table:\n%s", table.String())
	}
}

// TestThisHost runs all checks on the host of the test. The result depends on the host, but the
// checks must not fail, and must not find problems that prevent this test from running.
func TestThisHost(t *testing.T) {
	b := newBed(t)
	b.options.Runtimes = nil
	findings, err := Check(t.Context(), ThisHost(), b.options)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		t.Logf("%-7s %-28s %s", f.Severity, f.ID, f.Problem)
		if f.ID == "kernel.syscalls" || f.ID == "kernel.namespaces" || f.ID == "storage.unreadable" {
			t.Errorf("%s: %s", f.ID, f.Problem)
		}
	}
	for _, name := range []string{"/", "/proc"} {
		fs, err := (machine{}).FileSystem(name)
		if err != nil || fs.Type == 0 || fs.NoTypes {
			t.Errorf("file system of %s: %+v, %v", name, fs, err)
		}
	}
}

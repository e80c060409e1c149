package exits

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/patience"
	"github.com/criserver/criserver/internal/proc"
)

// TestWatch checks that a Watcher reports the records from before the watch and new records, and no temporary files.
func TestWatch(t *testing.T) {
	dir := Dir(filepath.Join(t.TempDir(), "exits"))
	w, err := dir.Watch()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	write := func(name string) {
		if err := os.WriteFile(dir.File(name), []byte("{}"), 0o600); err != nil {
			t.Error(err)
		}
	}
	before, after := ids.New(), ids.New()
	write(before)
	seen := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx, func(id string) { seen <- id }) }()
	// await waits for the report of an id. An id can be reported more than once.
	await := func(want string) {
		for {
			select {
			case id := <-seen:
				if !ids.Valid(id) {
					t.Errorf("reported %q", id)
				}
				if id == want {
					return
				}
			case <-time.After(patience.For(20 * time.Second)):
				t.Fatalf("the record of %s is not reported", want)
			}
		}
	}
	await(before)
	write("." + after + ".new")
	write(after)
	await(after)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRemoveOrphans(t *testing.T) {
	dir := Dir(t.TempDir())
	for _, name := range []string{"kept", "orphan"} {
		if err := os.WriteFile(dir.File(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir.RemoveOrphans(func(id string) bool { return id == "kept" })
	entries, err := os.ReadDir(string(dir))
	if err != nil || len(entries) != 1 || entries[0].Name() != "kept" {
		t.Errorf("got %v, %v, want only the record of the container that exists", entries, err)
	}
	for range 2 {
		if err := dir.Remove("kept"); err != nil {
			t.Error(err)
		}
	}
}

// TestKernelStatus checks the exit status of a child that was not waited for.
func TestKernelStatus(t *testing.T) {
	cmd := exec.Command("sh", "-c", "read x; exit 7")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ref, err := proc.Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	for end := patience.Until(20 * time.Second); ref.Alive(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the process does not exit")
		}
	}
	if status, ok := KernelStatus(ref, nil); !ok || status.ExitStatus() != 7 {
		t.Errorf("got %v, %t, want exit status 7", status, ok)
	}
	_ = cmd.Wait() // fails, because the process was waited for
}

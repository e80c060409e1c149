package dirwatch

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// limit replaces inotify: instances can be created while allowed returns true.
func limit(t *testing.T, allowed func() bool) {
	t.Helper()
	newInotify = func() (*fsnotify.Watcher, error) {
		if !allowed() {
			return nil, unix.EMFILE
		}
		return fsnotify.NewWatcher()
	}
	t.Cleanup(func() { newInotify = fsnotify.NewWatcher })
}

// waitEvent waits until the watcher reports the creation of a file in dir.
func waitEvent(t *testing.T, w *Watcher, dir string) {
	t.Helper()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	select {
	case ev := <-w.Events():
		if ev.Name != file || !ev.Has(fsnotify.Create) {
			t.Errorf("got the event %v, want the creation of %s", ev, file)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("timeout: no event")
	}
}

func TestWatch(t *testing.T) {
	w := New(time.Hour, func(reason error) { t.Errorf("warning: %v", reason) })
	defer w.Close()
	dir, other := t.TempDir(), t.TempDir()
	for _, d := range []string{dir, other} {
		if err := w.Add(d); err != nil {
			t.Fatal(err)
		}
	}
	if w.Polls() != nil {
		t.Error("the caller must poll although inotify works")
	}
	w.Keep([]string{dir})
	if err := os.WriteFile(filepath.Join(other, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	waitEvent(t, w, dir) // and not the event of the other directory
	if err := w.Add(filepath.Join(dir, "none")); !os.IsNotExist(err) {
		t.Errorf("add a missing directory: got %v, want an error that it does not exist", err)
	}
}

// TestPoll checks that the user of a watcher without an inotify instance must poll until the kernel allows inotify.
func TestPoll(t *testing.T) {
	allowed := false
	limit(t, func() bool { return allowed })
	var warnings []error
	w := New(time.Millisecond, func(reason error) { warnings = append(warnings, reason) })
	defer w.Close()
	dir := t.TempDir()
	if err := w.Add(dir); err != nil {
		t.Errorf("add a directory without inotify: %v", err)
	}
	w.Keep(nil)
	if w.Events() != nil || w.Errors() != nil {
		t.Error("without inotify there are channels of inotify")
	}
	for range 2 {
		<-w.Polls()
		if w.Resume() {
			t.Fatal("inotify works although the kernel refuses it")
		}
	}
	if len(warnings) != 1 || !errors.Is(warnings[0], unix.EMFILE) {
		t.Errorf("warnings: got %v, want only %v", warnings, unix.EMFILE)
	}
	allowed = true
	<-w.Polls()
	if !w.Resume() || w.Polls() != nil {
		t.Fatal("the caller must poll although inotify works")
	}
	if err := w.Add(dir); err != nil {
		t.Fatal(err)
	}
	waitEvent(t, w, dir)
}

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/internal/patience"
	"golang.org/x/sys/unix"
)

// TestLostLogIsReported checks that the status of a container has the number of log bytes
// that could not be written.
func TestLostLogIsReported(t *testing.T) {
	b := newTestBed(t)
	if err := unix.Mount("tmpfs", b.logs, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal("mount: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(b.logs, 0) })
	m, _ := b.manager()
	id := b.run(m, shell("much", "head -c 1000000 /dev/zero; exit 3"))
	s := b.waitExit(m, id)
	x, err := conmon.ReadExit(m.exits.File(id))
	if err != nil || x.LogLost == 0 {
		t.Fatalf("%+v, %v", x, err)
	}
	if !strings.Contains(s.Message, fmt.Sprintf("%d bytes of the log", x.LogLost)) || s.ExitCode != 3 || s.Reason != ReasonError {
		t.Errorf("%+v", s)
	}
	if _, err := os.Stat(filepath.Join(b.logs, "much.log")); err != nil {
		t.Error(err)
	}
}

// TestRunEndsWhenWatchFails checks that a failed watch of the exit records ends the work of Run.
func TestRunEndsWhenWatchFails(t *testing.T) {
	m := settingsManager(t)
	fail := errors.New("the watch failed")
	done := make(chan error, 1)
	go func() {
		done <- m.recordExits(t.Context(), func(context.Context, func(string)) error { return fail })
	}()
	select {
	case err := <-done:
		if !errors.Is(err, fail) {
			t.Errorf("got %v, want %v", err, fail)
		}
	case <-time.After(patience.For(20 * time.Second)):
		t.Fatal("the work does not end")
	}
}

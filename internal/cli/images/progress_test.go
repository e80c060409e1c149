package images

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/pty"
)

// openTerminal returns a terminal, and a function that closes the terminal and returns its output.
func openTerminal(t *testing.T, size pty.Size) (terminal *os.File, output func() string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	if err := errors.Join(unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0), pty.Resize(master, size)); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(&b, master)
		done <- err
	}()
	return terminal, func() string {
		t.Helper()
		if err := terminal.Close(); err != nil {
			t.Error(err)
		}
		// The kernel returns EIO when no process has the terminal open.
		if err := <-done; !errors.Is(err, unix.EIO) {
			t.Errorf("read terminal: got %v, want %v", err, unix.EIO)
		}
		return b.String()
	}
}

// TestProgressBars checks that a terminal shows a bar for each layer, also if the terminal does not know its size.
func TestProgressBars(t *testing.T) {
	for _, size := range []pty.Size{{Width: 120, Height: 30}, {}, {Width: 120}, {Height: 30}} {
		t.Run(fmt.Sprintf("%dx%d", size.Width, size.Height), func(t *testing.T) {
			terminal, output := openTerminal(t, size)
			d := newProgressDisplay(terminal)
			d.show(&adminv1.PullProgress{Layers: []*adminv1.PullLayer{
				{Digest: "sha256:" + strings.Repeat("a", 64), State: "fetching", Bytes: 512, Total: 1024},
				{Digest: "sha256:" + strings.Repeat("b", 64), State: "present", Total: 1024},
			}})
			d.finish()
			got := output()
			for _, want := range []string{"aaaaaaaaaaaaa  downloading [=", "bbbbbbbbbbbbb       exists [", "512.0 b / 1.0 KiB"} {
				if !strings.Contains(got, want) {
					t.Errorf("output %q does not contain %q", got, want)
				}
			}
		})
	}
}

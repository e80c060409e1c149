package runtime

import (
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// connect connects to the console socket in the working directory, as the OCI runtime does.
func connect(t *testing.T) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: consoleSocket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestConsole checks that a Console receives the first descriptor that the runtime sends, and removes its socket.
func TestConsole(t *testing.T) {
	t.Chdir(t.TempDir())
	c, err := ListenConsole()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	if err := c.Step(buf); err != nil || c.Master != -1 || c.Waiting() < 0 {
		t.Errorf("before the connection: got %v, master %d, waiting for %d", err, c.Master, c.Waiting())
	}
	runtime := connect(t)
	if err := c.Step(buf); err != nil || c.Master != -1 {
		t.Errorf("before the terminal: got %v, master %d", err, c.Master)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if _, _, err := runtime.WriteMsgUnix([]byte("/dev/pts/0"), unix.UnixRights(int(w.Fd()), int(r.Fd())), nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Finish(buf); err != nil || c.Master < 0 || c.Waiting() != -1 {
		t.Fatalf("after the terminal: got %v, master %d, waiting for %d", err, c.Master, c.Waiting())
	}
	defer unix.Close(c.Master)
	if _, err := unix.Write(c.Master, []byte("x")); err != nil {
		t.Errorf("the first descriptor is not the master: %v", err)
	}
	c.Close()
	if _, err := os.Lstat(consoleSocket); err == nil {
		t.Error("the socket exists after Close")
	}
}

// TestConsoleWithoutTerminal checks the errors of a runtime that sends no terminal.
func TestConsoleWithoutTerminal(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, connects := range map[string]bool{"no connection": false, "a closed connection": true} {
		c, err := ListenConsole()
		if err != nil {
			t.Fatal(err)
		}
		if connects {
			_ = connect(t).Close()
		}
		if err := c.Finish(make([]byte, 4096)); err == nil || !strings.Contains(err.Error(), "sent no terminal") {
			t.Errorf("%s: got %v, want an error", name, err)
		}
		c.Close()
	}
}

func TestConsolePath(t *testing.T) {
	if got := ConsolePath("/run/c"); got != "/run/c/console" {
		t.Errorf("short path: got %s", got)
	}
	want := "/proc/" + strconv.Itoa(os.Getpid()) + "/cwd/console"
	if got := ConsolePath("/" + strings.Repeat("x", maxSocketPath)); got != want {
		t.Errorf("long path: got %s, want %s", got, want)
	}
}

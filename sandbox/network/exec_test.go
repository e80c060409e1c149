package network

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/criserver/criserver/internal/patience"
	"golang.org/x/sys/unix"
)

// daemonEnv has the path of the plugin that the test binary executes when it acts as the daemon.
const daemonEnv = "CRISERVER_NETWORK_TEST_PLUGIN"

// TestPluginsEndWithDaemon checks that the kernel kills a plugin when the daemon is killed.
func TestPluginsEndWithDaemon(t *testing.T) {
	if plugin := os.Getenv(daemonEnv); plugin != "" {
		_, err := (&runner{}).ExecPlugin(t.Context(), plugin, nil, []string{"PATH=" + os.Getenv("PATH")})
		t.Fatal("the plugin has ended before the daemon: ", err)
	}
	pidFile := filepath.Join(t.TempDir(), "pid")
	daemon := exec.Command("/proc/self/exe", "-test.run=^TestPluginsEndWithDaemon$")
	daemon.Env = append(os.Environ(), daemonEnv+"="+script(t, "echo $$ >"+pidFile+".new; mv "+pidFile+".new "+pidFile+"; exec sleep 1000"))
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	until(t, "the plugin runs", func() bool {
		b, _ := os.ReadFile(pidFile)
		pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
		return pid > 0
	})
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	plugin := os.NewFile(uintptr(fd), "plugin")
	defer plugin.Close()
	defer func() { _ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) }()
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = daemon.Wait() // the error says that it was killed
	until(t, "the plugin has ended", func() bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10)
		return err == nil && n == 1
	})
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := patience.Until(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timeout: %s", what)
		}
	}
}

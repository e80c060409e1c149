package machine

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/criserver/criserver/test/harness"
)

func TestMain(m *testing.M) {
	Main()
	if os.Getuid() != 0 {
		fmt.Println("skipped: namespaces need root")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func newMachine(t *testing.T) *Machine {
	t.Helper()
	m, err := Start(Config{Name: "box", Dir: t.TempDir(), Path: "/usr/bin"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Kill)
	return m
}

func eventually(t *testing.T, check func() error) {
	t.Helper()
	end := time.Now().Add(harness.Patience(10 * time.Second))
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestNamespaces checks that commands see the name, processes, network and directories of the machine.
func TestNamespaces(t *testing.T) {
	m := newMachine(t)
	out, err := m.Run(t.Context(), "sh", "-c", "hostname; ls /sys/class/net /proc/sys/net/ipv4/conf | xargs; echo 1 >/var/lib/file; echo 2 >/etc/file; readlink /var/run; ps -e -o pid= | wc -l")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out, "box\n") || !strings.Contains(out, "\n/run\n") {
		t.Errorf("output: %s", out)
	}
	if _, err := os.Stat("/var/lib/file"); err == nil {
		t.Error("the machine and the host share /var")
	}
	if _, err := os.Stat("/etc/file"); err == nil {
		t.Error("the machine and the host share /etc")
	}
}

// TestServiceRestarts checks that a killed service is started again, that its environment is complete, and that Stop
// stops it for good.
func TestServiceRestarts(t *testing.T) {
	m := newMachine(t)
	if err := m.StartService("job", []string{"KEY=value"}, "sh", "-c", "echo $KEY; exec sleep 1000"); err != nil {
		t.Fatal(err)
	}
	first, err := m.State("job")
	if err != nil || !first.Running {
		t.Fatalf("state: %+v, %v", first, err)
	}
	if _, err := m.Run(t.Context(), "kill", "-9", fmt.Sprint(first.Pid)); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		s, err := m.State("job")
		if err == nil && (!s.Running || s.Pid == first.Pid) {
			err = fmt.Errorf("state after kill: %+v", s)
		}
		return err
	})
	checkLog := func() error {
		log, err := os.ReadFile(m.LogPath("job"))
		if err == nil && string(log) != "value\nvalue\n" {
			err = fmt.Errorf("log: %q", log)
		}
		return err
	}
	eventually(t, checkLog)
	if err := m.Stop(t.Context(), "job", syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	time.Sleep(restartDelay + 500*time.Millisecond)
	if s, err := m.State("job"); err != nil || s.Running || syscall.WaitStatus(s.Status).Signal() != syscall.SIGTERM {
		t.Errorf("state after Stop: %+v, %v", s, err)
	}
	if err := checkLog(); err != nil {
		t.Error(err)
	}
}

// TestKill checks that all processes of a killed machine end, also processes of other sessions, and that /var remains.
func TestKill(t *testing.T) {
	m := newMachine(t)
	const script = `setsid sleep 98765 >/dev/null 2>&1 &
until ps -e -o args= | grep -q -x 'sleep 98765'; do sleep 0.05; done
echo kept >/var/lib/file`
	if _, err := m.Run(t.Context(), "sh", "-c", script); err != nil {
		t.Fatal(err)
	}
	m.Kill()
	ps, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ps {
		if text, err := os.ReadFile("/proc/" + p.Name() + "/cmdline"); err == nil && string(text) == "sleep\x0098765\x00" {
			t.Errorf("process %s survived the machine", p.Name())
		}
	}
	again, err := Start(m.Config)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Kill()
	if out, err := again.Run(context.Background(), "cat", "/var/lib/file"); err != nil || out != "kept\n" {
		t.Errorf("file of the former boot: %q, %v", out, err)
	}
}

// TestDisk checks that /var/lib of a machine with a disk has the size of the disk, and that /var/log does not.
func TestDisk(t *testing.T) {
	m, err := Start(Config{Name: "small", Dir: t.TempDir(), Path: "/usr/bin", Disk: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Kill()
	out, err := m.Run(t.Context(), "stat", "-f", "-c", "%T %b %S", "/var/lib")
	if want := fmt.Sprintf("tmpfs %d %d\n", 16<<20/os.Getpagesize(), os.Getpagesize()); err != nil || out != want {
		t.Errorf("file system of /var/lib: %q, %v, want %q", out, err, want)
	}
	if out, err := m.Run(t.Context(), "sh", "-c", "head -c 20000000 /dev/zero >/var/lib/file"); err == nil {
		t.Errorf("20 MB fit into a disk of 16 MiB: %s", out)
	}
	if out, err := m.Run(t.Context(), "sh", "-c", "head -c 20000000 /dev/zero >/var/log/file"); err != nil {
		t.Errorf("/var/log: %v: %s", err, out)
	}
}

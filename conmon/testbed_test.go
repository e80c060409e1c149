package conmon_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/internal/proc"
)

// testTimeout limits every wait. It is generous because machines can be busy; no test checks
// speed.
const testTimeout = 60 * time.Second

// monitorBinary is the path of the monitor, which TestMain builds.
var monitorBinary string

func TestMain(m *testing.M) {
	if os.Getenv(fakeRuntimeEnv) != "" {
		os.Exit(fakeRuntime(os.Args[1:]))
	}
	if os.Getenv(writerEnv) != "" {
		os.Exit(writeLines())
	}
	if os.Getenv(launchEnv) != "" {
		os.Exit(launchAndHang())
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "conmon-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	monitorBinary = filepath.Join(dir, "conmon")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", monitorBinary, "../cmd/conmon")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build monitor: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// plainStarter starts monitors in the cgroup of the test.
type plainStarter struct{}

func (plainStarter) Start(command func() *exec.Cmd) (*exec.Cmd, error) {
	cmd := command()
	return cmd, cmd.Start()
}

// testbed contains everything that a container needs.
type testbed struct {
	t        testing.TB
	dir      string
	spec     conmon.Spec
	launcher conmon.Launcher
	monitor  proc.Ref
	started  conmon.Started
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
}

// newTestbed makes a testbed with the fake runtime.
func newTestbed(t testing.TB) *testbed {
	t.Helper()
	dir := t.TempDir()
	b := &testbed{t: t, dir: dir, launcher: conmon.Launcher{Path: monitorBinary, Starter: plainStarter{}, Watcher: watcher(t)}}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b.spec = conmon.Spec{
		ID:         fmt.Sprintf("test-%d-%s", os.Getpid(), strings.ToLower(filepath.Base(filepath.Dir(dir)))),
		RunDir:     filepath.Join(dir, "run"),
		Bundle:     filepath.Join(dir, "bundle"),
		ExitFile:   filepath.Join(dir, "exits", "exit"),
		LogPath:    filepath.Join(dir, "log"),
		Runtime:    []string{self},
		RuntimeEnv: append(os.Environ(), fakeRuntimeEnv+"=1", "FAKE_DIR="+dir, "GORACE=atexit_sleep_ms=0"),
	}
	for _, d := range []string{"run", "bundle", "exits"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func watcher(t testing.TB) *proc.Watcher {
	t.Helper()
	w, err := proc.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

// newRuncTestbed makes a testbed with runc and a busybox that runs args. mutate may change the
// OCI config before it is written.
func newRuncTestbed(t testing.TB, mutate func(config map[string]any), args ...string) *testbed {
	t.Helper()
	needRoot(t)
	runc, err := filepath.Abs("../bin/runc")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(runc); err != nil {
		if runc, err = exec.LookPath("runc"); err != nil {
			t.Fatal("needs runc: make tools")
		}
	}
	b := newTestbed(t)
	b.spec.Runtime = []string{runc, "--root", filepath.Join(b.dir, "runc")}
	b.spec.RuntimeEnv = nil
	rootfs := filepath.Join(b.spec.Bundle, "rootfs")
	for _, d := range []string{"bin", "proc", "dev", "tmp", "sys"} {
		if err := os.MkdirAll(filepath.Join(rootfs, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal("needs a static /bin/busybox, make deps: ", err)
	}
	if err := os.WriteFile(filepath.Join(rootfs, "bin", "busybox"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	config := ociConfig(b.spec.ID, args)
	if mutate != nil {
		mutate(config)
	}
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.spec.Bundle, "config.json"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = b.runtime("delete", "--force", b.spec.ID).Run()
		removeCgroups(t)
	})
	return b
}

// removeCgroups removes the cgroup of all containers of this test process. That fails if a
// container still has a cgroup below it.
func removeCgroups(t testing.TB) {
	t.Helper()
	dirs, err := filepath.Glob("/sys/fs/cgroup" + cgroupParent)
	more, err2 := filepath.Glob("/sys/fs/cgroup/*" + cgroupParent)
	if err := errors.Join(err, err2); err != nil {
		t.Error(err)
	}
	for _, dir := range append(dirs, more...) {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a cgroup still exists: %v", err)
		}
	}
}

// cgroupParent is the parent of the cgroups of this test process's containers.
var cgroupParent = fmt.Sprintf("/conmon-test-%d", os.Getpid())

type object = map[string]any

func ociConfig(id string, args []string) object {
	namespaces := []object{}
	for _, ns := range []string{"pid", "network", "ipc", "uts", "mount"} {
		namespaces = append(namespaces, object{"type": ns})
	}
	return object{
		"ociVersion": "1.0.2",
		"process":    object{"cwd": "/", "args": args, "env": []string{"PATH=/bin"}, "user": object{"uid": 0, "gid": 0}, "terminal": false},
		"root":       object{"path": "rootfs"},
		"mounts": []object{
			{"destination": "/proc", "type": "proc", "source": "proc"},
			{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"mode=755"}},
			{"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": []string{"newinstance", "ptmxmode=0666", "mode=0620"}},
		},
		"linux": object{"cgroupsPath": cgroupParent + "/" + id, "namespaces": namespaces},
	}
}

// sh returns the command line of a shell script in the container.
func sh(script string) []string { return []string{"/bin/busybox", "sh", "-c", script} }

func (b *testbed) runtime(args ...string) *exec.Cmd {
	cmd := exec.Command(b.spec.Runtime[0], append(b.spec.Runtime[1:len(b.spec.Runtime):len(b.spec.Runtime)], args...)...)
	cmd.Env = b.spec.RuntimeEnv
	return cmd
}

// create creates the container.
func (b *testbed) create() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), testTimeout)
	defer cancel()
	var err error
	if b.started, b.monitor, err = b.launcher.Create(ctx, b.spec); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(b.end)
}

// end kills the container and waits for its monitor.
func (b *testbed) end() {
	_ = b.started.Init.Signal(unix.SIGKILL)
	b.waitExited(b.monitor)
}

// start starts the process of the container.
func (b *testbed) start() {
	b.t.Helper()
	if out, err := b.runtime("start", b.spec.ID).CombinedOutput(); err != nil {
		b.t.Fatalf("start: %v: %s", err, out)
	}
}

// eventually waits until ok returns true.
func (b *testbed) eventually(what string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(testTimeout); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("timeout: %s", what)
		}
	}
}

// exit waits for the exit record.
func (b *testbed) exit() (e conmon.Exit) {
	b.t.Helper()
	b.eventually("exit record", func() (ok bool) {
		var err error
		if e, err = conmon.ReadExit(b.spec.ExitFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			b.t.Fatal(err)
		}
		return err == nil
	})
	return e
}

// waitExited waits until the process has exited and was reaped.
func (b *testbed) waitExited(r proc.Ref) {
	b.t.Helper()
	b.eventually(fmt.Sprintf("exit of process %d", r.PID), func() bool {
		now, err := proc.Identify(r.PID)
		return errors.Is(err, proc.ErrGone) || err == nil && now != r
	})
}

// entry is an entry of a CRI log.
type entry struct {
	stream, tag, text string
}

// log parses a log strictly.
func (b *testbed) log(path string) (entries []entry) {
	b.t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		b.t.Fatal(err)
	}
	return parseLog(b.t, raw)
}

func parseLog(t testing.TB, raw []byte) (entries []entry) {
	t.Helper()
	for line := range bytes.Lines(raw) {
		parts := strings.SplitN(string(line), " ", 4)
		if len(parts) != 4 || !strings.HasSuffix(parts[3], "\n") {
			t.Fatalf("not a log entry: %q", line)
		}
		if _, err := time.Parse(time.RFC3339Nano, parts[0]); err != nil {
			t.Fatalf("entry %q: %v", line, err)
		}
		entries = append(entries, entry{parts[1], parts[2], strings.TrimSuffix(parts[3], "\n")})
	}
	return entries
}

// text returns the output of one stream as a reader of the log sees it.
func text(entries []entry, stream string) string {
	var b strings.Builder
	for _, e := range entries {
		if e.stream == stream {
			b.WriteString(e.text)
			if e.tag == "F" {
				b.WriteByte('\n')
			}
		}
	}
	return b.String()
}

// openFDs returns the number of open descriptors of this process.
func openFDs(t *testing.T) int {
	t.Helper()
	runtime.GC()
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(dir)
}

func itoa(n int) string { return strconv.Itoa(n) }

// dial connects to the control socket directly, without the client of package conmon.
func (b *testbed) dial() int {
	b.t.Helper()
	dir, err := os.Open(b.spec.RunDir)
	if err != nil {
		b.t.Fatal(err)
	}
	defer dir.Close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/ctl", dir.Fd())}); err != nil {
		b.t.Fatal(err)
	}
	return fd
}

// writer makes the container write lines: see writeLines.
func (b *testbed) writer(total, chunk int) {
	b.spec.RuntimeEnv = append(b.spec.RuntimeEnv,
		fmt.Sprintf("FAKE_SCRIPT=unset %s; exec env '%s=%d %d' %s", fakeRuntimeEnv, writerEnv, total, chunk, b.spec.Runtime[0]))
}

// attachStdin attaches with an input that stays empty.
func (b *testbed) attachStdin(a *attached, stdout io.Writer) {
	r, w := io.Pipe()
	b.t.Cleanup(func() { w.Close() })
	a.run(b, conmon.AttachOptions{Stdin: r, Stdout: stdout})
}

// counter counts the bytes that are written to it.
type counter struct{ n atomic.Int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

func (c *counter) load() int64 { return c.n.Load() }

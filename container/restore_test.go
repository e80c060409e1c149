package container

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/container/record"
	"github.com/criserver/criserver/internal/patience"
	"github.com/criserver/criserver/internal/proc"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// criuEnv returns an environment in which runc finds criu: the criu of "make tools", or the criu in
// $PATH.
func criuEnv(t *testing.T) []string {
	t.Helper()
	built, err := filepath.Abs("../bin/criu")
	if err == nil {
		_, err = os.Stat(built)
	}
	if err != nil {
		if _, err := exec.LookPath("criu"); err != nil {
			t.Skip("no criu: run \"make tools\"")
		}
		return os.Environ()
	}
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "PATH=") })
	return append(env, "PATH="+filepath.Dir(built)+":"+os.Getenv("PATH"))
}

// checkpoint is a checkpoint that runc has made of a container.
type checkpoint struct {
	t      *testing.T
	env    []string
	images string
}

// dump makes a checkpoint of a container. The container has exited then, and is removed.
func (b *testBed) dump(t *testing.T, m *Manager, id string) *checkpoint {
	t.Helper()
	c := &checkpoint{t: t, env: criuEnv(t), images: t.TempDir()}
	cmd := exec.Command(b.runtime.Path, append(b.runtime.Args()[1:], "checkpoint", "--image-path", c.images, "--work-path", t.TempDir(), "--file-locks", "--manage-cgroups-mode", "ignore", id)...)
	cmd.Env = c.env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("runc checkpoint: %v: %s", err, out)
	}
	b.waitExit(m, id)
	if err := m.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return c
}

// restore returns what CreateRestored needs.
func (c *checkpoint) restore() Restore {
	return Restore{
		Unpack: func(_ context.Context, _, images string) error { return os.CopyFS(images, os.DirFS(c.images)) },
		Check:  func(context.Context, RestoreTarget) error { return nil },
		Args:   []string{"--file-locks", "--manage-cgroups-mode", "ignore"},
		Env:    c.env,
	}
}

const counter = "trap 'exit 6' TERM; i=0; while :; do echo count $i; i=$((i+1)); read -t 0.1 x </dev/zero; done"

// restored makes a container from a checkpoint of a container that counts.
func (b *testBed) restored(t *testing.T, m *Manager) (id string, before int) {
	t.Helper()
	old := b.run(m, shell("old", counter))
	b.log("old", "count 5")
	cp := b.dump(t, m, old)
	before = lastCount(t, filepath.Join(b.logs, "old.log"))
	id, err := m.CreateRestored(t.Context(), "pod", shell("main", counter), cp.restore())
	if err != nil {
		t.Fatal(err)
	}
	return id, before
}

func lastCount(t *testing.T, log string) int {
	t.Helper()
	raw, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(raw))
	n, err := strconv.Atoi(fields[len(fields)-1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// restoreBed returns a testBed with a manager that can restore containers.
func restoreBed(t *testing.T) (b *testBed, manager func() (*Manager, func())) {
	t.Helper()
	b = newTestBed(t)
	criuEnv(t)
	dir := filepath.Join(b.dir, "restore")
	t.Cleanup(func() {
		if left, err := os.ReadDir(dir); err == nil && len(left) > 0 {
			t.Errorf("process images are left: %v", left)
		}
	})
	return b, func() (*Manager, func()) { return b.manager(func(c *Config) { c.RestoreDir = dir }) }
}

// TestRestoredContainer checks that a restored container has no process before its start, also after
// a restart of the daemon, and continues afterwards.
func TestRestoredContainer(t *testing.T) {
	b, manager := restoreBed(t)
	m, stop := manager()
	id, before := b.restored(t, m)
	stop()
	m, stop = manager()
	defer stop()
	s, err := m.Get(id)
	if err != nil || s.State != Created || s.PID != 0 {
		t.Fatalf("get before the start: %+v (error %v), want a created container without a process", s, err)
	}
	if pids, err := b.tree.Pids(s.CgroupPath); err == nil && len(pids) > 0 {
		t.Errorf("processes before the start: %v", pids)
	}
	if st, err := m.Stats(id); err != nil || st.Usage != nil {
		t.Errorf("stats before the start: %+v, %v", st.Usage, err)
	}
	if _, err := m.ExecSync(t.Context(), id, []string{"true"}, 0); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("exec before the start: %v", err)
	}
	if err := m.UpdateResources(t.Context(), id, &cri.LinuxContainerResources{CpuShares: 100}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("update before the start: %v", err)
	}
	target := shell("target", "true")
	target.Linux.SecurityContext.NamespaceOptions = &cri.NamespaceOption{Pid: cri.NamespaceMode_TARGET, TargetId: id}
	if _, err := m.Create(t.Context(), "pod", target, nil); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("another container in the PID namespace before the start: %v", err)
	}
	if err := m.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	b.log("main", "count "+strconv.Itoa(before+5))
	if raw, _ := os.ReadFile(filepath.Join(b.logs, "main.log")); strings.Contains(string(raw), "count 0\n") {
		t.Error("the container has started from the beginning")
	}
	if out, err := m.ExecSync(t.Context(), id, []string{"echo", "in"}, 0); err != nil || string(out.Stdout) != "in\n" {
		t.Errorf("exec: %q, %v", out.Stdout, err)
	}
	if st, err := m.Stats(id); err != nil || st.Usage == nil {
		t.Errorf("stats: %+v, %v", st.Usage, err)
	}
	if err := m.UpdateResources(t.Context(), id, &cri.LinuxContainerResources{CpuShares: 100}); err != nil {
		t.Errorf("update: %v", err)
	}
	stop()
	m, _ = manager()
	if err := m.Stop(t.Context(), id, patience.For(20*time.Second)); err != nil {
		t.Fatal(err)
	}
	if s, err := m.Get(id); err != nil || s.State != Exited || s.ExitCode != 6 {
		t.Errorf("get after the stop: %+v, %v, want exit code 6", s, err)
	}
}

// TestRestoredContainerIsNotStarted checks the ends of a container that was never started.
func TestRestoredContainerIsNotStarted(t *testing.T) {
	for name, end := range map[string]func(b *testBed, m *Manager, id string){
		"stop": func(b *testBed, m *Manager, id string) {
			if err := m.Stop(b.t.Context(), id, time.Minute); err != nil {
				b.t.Error(err)
			}
		},
		"remove": func(b *testBed, m *Manager, id string) {
			if err := m.Remove(b.t.Context(), id); err != nil {
				b.t.Error(err)
			}
		},
		"death of the monitor": func(b *testBed, m *Manager, id string) {
			c, _ := m.find(id)
			_, monitor := c.refs()
			if err := monitor.Signal(unix.SIGKILL); err != nil {
				b.t.Error(err)
			}
			b.waitExit(m, id)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, manager := restoreBed(t)
			m, _ := manager()
			id, _ := b.restored(t, m)
			end(b, m, id)
			s, err := m.Get(id)
			if name == "remove" {
				if !errdefs.IsNotFound(err) {
					t.Errorf("get: %v", err)
				}
				return
			}
			if err != nil || s.State != Exited || s.ExitCode != 137 {
				t.Errorf("get: %+v, %v, want exit code 137", s, err)
			}
			if err := m.Start(t.Context(), id); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("start: %v", err)
			}
		})
	}
}

// TestUnreadableRestoredContainer checks that a container with an unreadable record can be stopped
// before its start.
func TestUnreadableRestoredContainer(t *testing.T) {
	b, manager := restoreBed(t)
	m, stop := manager()
	id, _ := b.restored(t, m)
	c, _ := m.find(id)
	_, monitor := c.refs()
	stop()
	overwrite(t, c.dir, "", record.File)
	m, _ = manager()
	if s, err := m.Get(id); err != nil || s.State != Unknown {
		t.Errorf("get: %+v, %v, want the unknown state", s, err)
	}
	if err := m.Remove(t.Context(), id); err != nil {
		t.Error(err)
	}
	awaitDeath(t, monitor)
	manager() // removes the process images
}

func awaitDeath(t *testing.T, r proc.Ref) {
	t.Helper()
	for end := patience.Until(20 * time.Second); r.Alive(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("process %d is still running", r.PID)
		}
	}
}

// TestRestoreIsInterrupted kills the monitor, criu or the runtime while criu restores. Nothing of the
// container is left, and the next restore of the checkpoint succeeds.
func TestRestoreIsInterrupted(t *testing.T) {
	for _, victim := range []string{"monitor", "criu", "runtime", "daemon"} {
		t.Run(victim, func(t *testing.T) {
			b, manager := restoreBed(t)
			m, stop := manager()
			old := b.run(m, shell("old", counter))
			b.log("old", "count 5")
			cp := b.dump(t, m, old)
			// criu reads the image of the first process from a FIFO, so that it waits there.
			hold := cp.restore()
			hold.Unpack = func(ctx context.Context, rootfs, images string) error {
				if err := cp.restore().Unpack(ctx, rootfs, images); err != nil {
					return err
				}
				name := filepath.Join(images, "pstree.img")
				if err := os.Rename(name, name+".held"); err != nil {
					return err
				}
				return unix.Mkfifo(name, 0o600)
			}
			id, err := m.CreateRestored(t.Context(), "pod", shell("main", counter), hold)
			if err != nil {
				t.Fatal(err)
			}
			c, _ := m.find(id)
			_, monitor := c.refs()
			started := make(chan error, 1)
			go func() { started <- m.Start(context.Background(), id) }()
			criu := awaitCriu(t, b, c.rec.CgroupPath)
			switch victim {
			case "monitor":
				err = monitor.Signal(unix.SIGKILL)
			case "criu":
				err = criu.Signal(unix.SIGKILL)
			case "runtime":
				err = parentOf(t, criu.PID).Signal(unix.SIGKILL)
			case "daemon":
				stop()
				m, _ = manager()
				err = m.Stop(t.Context(), id, 0)
			}
			if err != nil {
				t.Fatal(err)
			}
			if victim == "daemon" {
				hasFailed(t, m, id)
			} else if err := <-started; err == nil {
				t.Error("the start returned no error")
			}
			b.waitExit(m, id)
			if err := m.Remove(t.Context(), id); err != nil {
				t.Error(err)
			}
			awaitDeath(t, criu)
			awaitDeath(t, monitor)
			id, err = m.CreateRestored(t.Context(), "pod", shell("main", counter), cp.restore())
			if err == nil {
				err = m.Start(t.Context(), id)
			}
			if err != nil {
				t.Errorf("second attempt: %v", err)
			}
		})
	}
}

// hasFailed checks that the container has exited because it was stopped.
func hasFailed(t *testing.T, m *Manager, id string) {
	t.Helper()
	if s, err := m.Get(id); err != nil || s.State != Exited || s.PID != 0 {
		t.Errorf("get: %+v, %v, want an exited container", s, err)
	}
}

func awaitCriu(t *testing.T, b *testBed, cgroup string) proc.Ref {
	t.Helper()
	for end := patience.Until(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		pids, err := b.tree.Pids(cgroup)
		if err != nil || len(pids) == 0 {
			continue
		}
		if ref, err := proc.Identify(pids[0]); err == nil {
			return ref
		}
	}
	t.Fatal("criu is not running")
	return proc.Ref{}
}

func parentOf(t *testing.T, pid int) proc.Ref {
	t.Helper()
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, fields, _ := strings.Cut(string(stat), ") ")
	parent, _ := strconv.Atoi(strings.Fields(fields)[1])
	ref, err := proc.Identify(parent)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// TestRestoreTerminal checks that the terminal of a restored container is connected.
func TestRestoreTerminal(t *testing.T) {
	b, manager := restoreBed(t)
	m, _ := manager()
	config := shell("old", "i=0; while :; do echo count $i; i=$((i+1)); read -t 0.1 x </dev/zero; done")
	config.Tty = true
	old := b.run(m, config)
	b.log("old", "count 5")
	cp := b.dump(t, m, old)
	config = shell("main", config.Command[2])
	config.Tty = true
	id, err := m.CreateRestored(t.Context(), "pod", config, cp.restore())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	b.log("main", "count 9")
	c, _ := m.find(id)
	if err := conmon.Resize(t.Context(), c.dir, conmon.Size{Width: 90, Height: 30}); err != nil {
		t.Error(err)
	}
}

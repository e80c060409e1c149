package container

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/container/record"
	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/patience"
	"github.com/criserver/criserver/internal/proc"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestRecoverAllStates(t *testing.T) {
	b := newTestBed(t)
	m, stop := b.manager()
	created := b.create(m, shell("created", "exit 4"))
	running := b.run(m, shell("running", "trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done"))
	ended := b.run(m, shell("ended", "exit 6"))
	b.waitExit(m, ended)
	soon := b.run(m, shell("soon", "while ! test -e /tmp/go; do sleep 0.05; done; exit 8"))
	b.log("running", "up")
	if err := m.UpdateResources(t.Context(), running, &cri.LinuxContainerResources{CpuShares: 300}); err != nil {
		t.Fatal(err)
	}
	before, _ := m.Get(running)
	stop()
	// This container exits while no daemon is running.
	if err := os.WriteFile(filepath.Join(b.images.dir, soon, "tmp/go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}

	m, _ = b.manager()
	if n := len(m.List()); n != 4 {
		t.Fatalf("%d containers", n)
	}
	s, err := m.Get(running)
	if err != nil || s.State != Running || s.PID != before.PID || !s.StartedAt.Equal(before.StartedAt) || s.Resources.GetCpuShares() != 300 {
		t.Errorf("running: %+v, %v", s, err)
	}
	if out, err := m.ExecSync(t.Context(), running, []string{"sh", "-c", "echo $HOSTNAME"}, 0); err != nil || string(out.Stdout) != "pod-host\n" {
		t.Errorf("exec: %q, %v", out.Stdout, err)
	}
	if s := b.waitExit(m, ended); s.ExitCode != 6 {
		t.Errorf("exited: %+v", s)
	}
	if s := b.waitExit(m, soon); s.ExitCode != 8 {
		t.Errorf("exited without a daemon: %+v", s)
	}
	if err := m.Start(t.Context(), created); err != nil {
		t.Error(err)
	}
	if s := b.waitExit(m, created); s.ExitCode != 4 {
		t.Errorf("created: %+v", s)
	}
	if err := m.Stop(t.Context(), running, patience.For(20*time.Second)); err != nil {
		t.Error(err)
	}
	if s := b.waitExit(m, running); s.ExitCode != 9 {
		t.Errorf("stopped: %+v", s)
	}
}

// TestRecoverCompletesStart checks that the recovery completes a start that was interrupted
// before or after the call of the runtime.
func TestRecoverCompletesStart(t *testing.T) {
	b := newTestBed(t)
	for name, called := range map[string]bool{"before": false, "after": true} {
		m, stop := b.manager()
		id := b.create(m, shell(name, "trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done"))
		c, _ := m.find(id)
		if err := c.change(func(f *record.Status) { f.Starting = time.Now().UnixNano() }); err != nil {
			t.Fatal(err)
		}
		if called {
			if err := b.runtime.Start(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		stop()
		m, _ = b.manager()
		b.log(name, "up")
		if s, err := m.Get(id); err != nil || s.State != Running {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
		if err := m.Remove(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

func TestRecoverRemovesIncompleteContainers(t *testing.T) {
	b := newTestBed(t)
	m, stop := b.manager()
	// The daemon died after it read the reply of the monitor and before it wrote the state file.
	id := b.create(m, shell("half", "sleep 1000"))
	c, _ := m.find(id)
	init, monitor := c.refs()
	if err := os.Remove(filepath.Join(c.dir, record.StateFile)); err != nil {
		t.Fatal(err)
	}
	// The daemon died after it made the directory and before it wrote the record.
	empty := filepath.Join(b.runDir, "containers", ids.New())
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(b.runDir, "exits", ids.New())
	if err := os.WriteFile(foreign, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	stop()
	m, _ = b.manager()
	if n := len(m.List()); n != 0 {
		t.Errorf("%d containers", n)
	}
	for _, r := range []proc.Ref{init, monitor} {
		if r.Alive() {
			t.Errorf("%v is alive", r)
		}
	}
	for _, p := range []string{empty, foreign, c.dir} {
		if _, err := os.Lstat(p); err == nil {
			t.Errorf("%s is left", p)
		}
	}
}

func TestRecoverAfterReboot(t *testing.T) {
	b := newTestBed(t)
	m, stop := b.manager()
	id := b.create(m, shell("old", "exit 0"))
	c, _ := m.find(id)
	if err := m.Stop(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	if err := b.runtime.Delete(t.Context(), id, true); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(c.dir, record.File)
	rec, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, bytes.ReplaceAll(rec, []byte(m.boot), []byte("another-boot")), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	stop()
	m, _ = b.manager()
	if len(m.List()) != 0 {
		t.Error("a container from before the reboot is visible")
	}
}

// TestRecoverKillsRemainingProcesses simulates a daemon that died after it recorded the exit
// of a container and before it killed the other processes of the container.
func TestRecoverKillsRemainingProcesses(t *testing.T) {
	b := newTestBed(t)
	m, stop := b.manager()
	config := shell("host", "setsid sleep 1000 & echo up; wait")
	config.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_NODE
	id := b.run(m, config)
	b.log("host", "up")
	c, _ := m.find(id)
	init, _ := c.refs()
	stop()
	if err := init.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.setExit(record.Exit{Finished: time.Now().UnixNano(), ExitCode: 137, Reason: ReasonError})
	if pids, err := b.tree.Pids(c.rec.CgroupPath); err != nil || len(pids) == 0 {
		t.Fatalf("the container has no other processes: %v, %v", pids, err)
	}
	m, _ = b.manager()
	if pids, err := b.tree.Pids(c.rec.CgroupPath); err != nil || len(pids) != 0 {
		t.Errorf("processes are left: %v, %v", pids, err)
	}
	if s, err := m.Get(id); err != nil || s.State != Exited || s.ExitCode != 137 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestRecoverWithoutExitRecord kills a monitor and its container while no daemon is running,
// so that there is no exit record.
func TestRecoverWithoutExitRecord(t *testing.T) {
	b := newTestBed(t)
	m, stop := b.manager()
	id := b.run(m, shell("gone", "sleep 1000"))
	c, _ := m.find(id)
	init, monitor := c.refs()
	stop()
	for _, r := range []proc.Ref{monitor, init} {
		if err := r.Signal(unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	for init.Alive() || monitor.Alive() {
		time.Sleep(time.Millisecond)
	}
	m, _ = b.manager()
	if s := b.waitExit(m, id); s.ExitCode == 0 || s.Reason != ReasonError || s.Message == "" {
		t.Errorf("%+v", s)
	}
}

// TestKilledDaemon kills a daemon at each step of the life of a container, and starts
// another one.
func TestKilledDaemon(t *testing.T) {
	if os.Getenv("CRISERVER_TEST_KILL_STEP") != "" {
		runDaemonUntilStep(t)
		return
	}
	b := newTestBed(t)
	for _, step := range []string{"record", "mounted", "answered", "created", "started"} {
		t.Run(step, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestKilledDaemon$")
			cmd.Env = append(os.Environ(), "CRISERVER_TEST_KILL_STEP="+step, "CRISERVER_TEST_DIR="+b.dir, "CRISERVER_TEST_PARENT="+b.parent, "CRISERVER_TEST_MONITOR="+b.monitor)
			out, err := cmd.CombinedOutput()
			if status, ok := cmd.ProcessState.Sys().(interface{ Signaled() bool }); !ok || !status.Signaled() {
				t.Fatalf("the daemon was not killed: %v: %s", err, out)
			}
			b.images.adopt(t, b.runDir)
			m, stop := b.manager()
			defer stop()
			list := m.List()
			isRecovered := step == "created" || step == "started"
			if (len(list) == 1) != isRecovered {
				t.Fatalf("containers after the restart: got %d, want one: %t", len(list), isRecovered)
			}
			if isRecovered {
				if want := map[string]State{"created": Created, "started": Running}[step]; list[0].State != want {
					t.Errorf("state of the container: got %s, want %s", list[0].State, want)
				}
			}
			if err := m.RemovePod(t.Context(), "pod"); err != nil {
				t.Error(err)
			}
		})
	}
}

// runDaemonUntilStep creates a container and kills its own process at a step.
func runDaemonUntilStep(t *testing.T) {
	step := os.Getenv("CRISERVER_TEST_KILL_STEP")
	b := testBedAt(t, os.Getenv("CRISERVER_TEST_DIR"), os.Getenv("CRISERVER_TEST_PARENT"), os.Getenv("CRISERVER_TEST_MONITOR"))
	b.startShared(b.parent + "/monitors")
	die := func() { _ = unix.Kill(os.Getpid(), unix.SIGKILL); select {} }
	m, _ := b.manager(func(c *Config) {
		c.Images = &dyingImages{b.images, step, die}
		c.Monitors = &dyingMonitors{c.Monitors, step, die}
	})
	id := b.create(m, shell("main", "sleep 1000"))
	if step == "created" {
		die()
	}
	if err := m.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	die()
}

type dyingImages struct {
	Images
	step string
	die  func()
}

func (d *dyingImages) Mount(ctx context.Context, r RootFS) error {
	if d.step == "record" {
		d.die()
	}
	err := d.Images.Mount(ctx, r)
	if d.step == "mounted" {
		d.die()
	}
	return err
}

type dyingMonitors struct {
	Monitors
	step string
	die  func()
}

func (d *dyingMonitors) Create(ctx context.Context, s conmon.Spec) (conmon.Started, proc.Ref, error) {
	started, ref, err := d.Monitors.Create(ctx, s)
	if err == nil && d.step == "answered" {
		d.die()
	}
	return started, ref, err
}

// adopt registers the mounts of another process, which a real image store finds in the
// mount table.
func (b *bindImages) adopt(t *testing.T, runDir string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(b.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		target := filepath.Join(runDir, "containers", e.Name(), "rootfs")
		if strings.Contains(string(info), target) {
			b.mounts[e.Name()] = target
		}
	}
}

// TestRecoverConfigOfAnotherVersion stores a config that breaks a rule of this version. The
// container keeps its state, and can be stopped and removed, but not started.
func TestRecoverConfigOfAnotherVersion(t *testing.T) {
	b := newTestBed(t)
	m, stop := b.manager()
	running, created := b.run(m, shell("running", "sleep 1000")), b.create(m, shell("created", "exit 0"))
	var dirs []*container
	for _, id := range []string{running, created} {
		c, err := m.find(id)
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, c)
	}
	stop()
	for _, c := range dirs {
		c.config.Linux.SecurityContext.SupplementalGroups = []int64{-1}
		if err := errors.Join(c.rec.SetMessages(c.config, c.podConfig), c.rec.Write(c.dir)); err != nil {
			t.Fatal(err)
		}
	}

	m, _ = b.manager()
	for id, want := range map[string]State{running: Running, created: Created} {
		if s, err := m.Get(id); err != nil || s.State != want {
			t.Errorf("%s: %+v, %v", want, s, err)
		}
	}
	if _, err := m.ExecSync(t.Context(), running, []string{"true"}, 0); err != nil {
		t.Errorf("exec: %v", err)
	}
	if err := m.Start(t.Context(), created); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "supplemental_groups") {
		t.Errorf("start: %v", err)
	}
	for _, id := range []string{running, created} {
		if err := m.Stop(t.Context(), id, 0); err != nil {
			t.Errorf("stop: %v", err)
		}
		if s := b.waitExit(m, id); s.State != Exited {
			t.Errorf("after the stop: %+v", s)
		}
		if err := m.Remove(t.Context(), id); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
}

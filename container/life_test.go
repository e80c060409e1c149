package container

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestLife(t *testing.T) {
	b := newBed(t)
	m, _ := b.manager()
	ctx := t.Context()
	c := shell("main", "echo hello $WHO; trap 'exit 3' TERM; while :; do sleep 0.1; done")
	c.Envs = []*cri.KeyValue{{Key: "WHO", Value: []byte("you")}}
	id := b.create(m, c)
	s, err := m.Get(id[:10])
	if err != nil || s.State != Created || s.PID == 0 || s.CreatedAt.IsZero() || !s.StartedAt.IsZero() {
		t.Fatalf("after create: %+v, %v", s, err)
	}
	if again := b.create(m, c); again != id {
		t.Errorf("the same request made another container: %s", again)
	}
	if err := m.Start(ctx, id); err != nil {
		t.Fatal(err)
	}
	b.log("main", "stdout F hello you")
	if s, _ = m.Get(id); s.State != Running || s.StartedAt.Before(s.CreatedAt) {
		t.Errorf("after start: %+v", s)
	}
	if err := m.Start(ctx, id); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("second start: %v", err)
	}
	if _, err := m.Create(ctx, "pod", c, nil); !errdefs.IsAlreadyExists(err) {
		t.Errorf("create of a running one: %v", err)
	}
	if err := m.Stop(ctx, id, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	if s, _ = m.Get(id); s.State != Exited || s.ExitCode != 3 || s.Reason != ReasonError || s.FinishedAt.Before(s.StartedAt) {
		t.Errorf("after stop: %+v", s)
	}
	for range 2 {
		if err := m.Stop(ctx, id, time.Second); err != nil {
			t.Errorf("stop of a stopped one: %v", err)
		}
		if err := m.Remove(ctx, id); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	if _, err := m.Get(id); !errdefs.IsNotFound(err) {
		t.Errorf("after remove: %v", err)
	}
}

func TestExitCodes(t *testing.T) {
	b := newBed(t)
	m, _ := b.manager()
	for script, want := range map[string]struct {
		code   int32
		reason string
	}{
		"exit 0":       {0, ReasonCompleted},
		"exit 7":       {7, ReasonError},
		"kill -9 $$":   {0, ReasonCompleted}, // the first of a PID namespace cannot kill itself
		"exec /bin/no": {127, ReasonError},
	} {
		id := b.run(m, shell(strings.ReplaceAll(script, "/", "."), script))
		if s := b.waitExit(m, id); s.ExitCode != want.code || s.Reason != want.reason {
			t.Errorf("%s: code %d, %s", script, s.ExitCode, s.Reason)
		}
	}
}

func TestUserEnvAndDirectory(t *testing.T) {
	b := newBed(t)
	b.images.config.WorkingDir = "/made/by/us"
	b.images.config.Volumes = map[string]struct{}{"/vol": {}, "/../../escape": {}}
	m, _ := b.manager()
	c := shell("who", "id; pwd; echo HOME=$HOME HOSTNAME=$HOSTNAME; ls -d /vol /escape; cat /proc/self/oom_score_adj")
	c.Linux.SecurityContext.RunAsUsername = "alice"
	c.Linux.SecurityContext.SupplementalGroups = []int64{4000}
	c.Linux.Resources = &cri.LinuxContainerResources{OomScoreAdj: 555, MemoryLimitInBytes: 64 << 20, CpuShares: 100}
	id := b.run(m, c)
	s := b.waitExit(m, id)
	b.log("who", "uid=1000(alice) gid=1001 groups=1001,3000(team),4000")
	b.log("who", "stdout F /made/by/us")
	b.log("who", "HOME=/tmp HOSTNAME=pod-host")
	b.log("who", "stdout F /vol")
	b.log("who", "stdout F /escape")
	b.log("who", "stdout F 555")
	if s.UID != 1000 || s.GID != 1001 || len(s.SupplementalGroups) != 3 {
		t.Errorf("snapshot says %d:%d %v", s.UID, s.GID, s.SupplementalGroups)
	}
}

func TestCannotRun(t *testing.T) {
	b := newBed(t)
	m, _ := b.manager()
	c := shell("no", "")
	c.Command = []string{"/does/not/exist"}
	if id, err := m.Create(t.Context(), "pod", c, nil); err == nil {
		err = m.Start(t.Context(), id)
		if s, _ := m.Get(id); err == nil || s.Reason != ReasonContainerCannotRun || s.ExitCode != 128 {
			t.Errorf("%v, %+v", err, s)
		}
	} else if !strings.Contains(err.Error(), "/does/not/exist") {
		t.Errorf("the runtime's words are missing: %v", err)
	}
}

// The runtime fails to start: the process was never run, and the container says so.
func TestStartFails(t *testing.T) {
	b := newBed(t)
	script := filepath.Join(t.TempDir(), "runc")
	text := "#!/bin/sh\nfor a; do case $a in start) echo '{\"level\":\"error\",\"msg\":\"no start today\"}' >&3; exit 1;; esac; done\nexec " + b.runtime.Path + " \"$@\"\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	b.runtime.Path = script
	m, _ := b.manager()
	id := b.create(m, shell("no", "exit 0"))
	err := m.Start(t.Context(), id)
	if err == nil || !strings.Contains(err.Error(), "no start today") {
		t.Errorf("start: %v", err)
	}
	s := b.waitExit(m, id)
	if s.ExitCode != 128 || s.Reason != ReasonContainerCannotRun || !strings.Contains(s.Message, "no start today") {
		t.Errorf("%+v", s)
	}
}

func TestStopEscalates(t *testing.T) {
	b := newBed(t)
	m, _ := b.manager()
	id := b.run(m, shell("deaf", "trap '' TERM; echo up; while :; do sleep 1; done"))
	b.log("deaf", "up")
	long := make(chan error, 1)
	go func() { long <- m.Stop(context.Background(), id, time.Hour) }()
	time.Sleep(100 * time.Millisecond)
	// While it is being stopped all else goes on.
	if out, err := m.ExecSync(t.Context(), id, []string{"echo", "here"}, 0); err != nil || string(out.Stdout) != "here\n" {
		t.Errorf("exec while stopping: %q, %v", out.Stdout, err)
	}
	if s, err := m.Get(id); err != nil || s.State != Running {
		t.Errorf("%+v, %v", s, err)
	}
	// A second stop shortens the first one's deadline.
	if err := m.Stop(t.Context(), id, 200*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-long:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the first stop still waits")
	}
	if s, _ := m.Get(id); s.ExitCode != 137 {
		t.Errorf("%+v", s)
	}
}

func TestStopSignalOfImage(t *testing.T) {
	b := newBed(t)
	b.images.config.StopSignal = "SIGUSR1"
	m, _ := b.manager()
	id := b.run(m, shell("usr1", "trap 'exit 11' USR1; echo up; while :; do sleep 0.1; done"))
	b.log("usr1", "up")
	if err := m.Stop(t.Context(), id, 30*time.Second); err != nil {
		t.Fatal(err)
	}
	if s, _ := m.Get(id); s.ExitCode != 11 {
		t.Errorf("%+v", s)
	}
}

func TestStopOfNeverStarted(t *testing.T) {
	b := newBed(t)
	m, _ := b.manager()
	id := b.create(m, shell("idle", "exit 0"))
	if err := m.Stop(t.Context(), id, time.Hour); err != nil {
		t.Fatal(err)
	}
	if s, _ := m.Get(id); s.State != Exited || !s.StartedAt.IsZero() || s.ExitCode == 0 {
		t.Errorf("%+v", s)
	}
	if err := m.Start(t.Context(), id); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("start: %v", err)
	}
}

// With the host's PID namespace the death of the first process ends no other.
func TestStopEndsAllInSharedPIDNamespace(t *testing.T) {
	b := newBed(t)
	m, _ := b.manager()
	c := shell("host", "setsid sleep 1000 & sleep 1000 & echo up; wait")
	c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_NODE
	id := b.run(m, c)
	b.log("host", "up")
	s, _ := m.Get(id)
	if pids, err := b.tree.Pids(s.CgroupPath); err != nil || len(pids) < 3 {
		t.Fatalf("%v, %v", pids, err)
	}
	if err := m.Stop(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	if pids, err := b.tree.Pids(s.CgroupPath); err != nil || len(pids) != 0 {
		t.Errorf("left: %v, %v", pids, err)
	}
}

func TestTargetPIDNamespace(t *testing.T) {
	b := newBed(t)
	m, _ := b.manager()
	target := b.run(m, shell("target", "sleep 1000"))
	c := shell("debug", "cat /proc/1/cmdline")
	c.Linux.SecurityContext.NamespaceOptions = &cri.NamespaceOption{Pid: cri.NamespaceMode_TARGET, TargetId: target}
	b.waitExit(m, b.run(m, c))
	b.log("debug", "sleep")
}

func TestRejections(t *testing.T) {
	b := newBed(t)
	m, _ := b.manager()
	for name, tc := range map[string]struct {
		change func(*cri.ContainerConfig)
		class  func(error) bool
	}{
		"image": {func(c *cri.ContainerConfig) { c.Image.Image = "nope" }, errdefs.IsNotFound},
		"user":  {func(c *cri.ContainerConfig) { c.Linux.SecurityContext.RunAsUsername = "bob" }, errdefs.IsInvalidArgument},
		"capability": {func(c *cri.ContainerConfig) {
			c.Linux.SecurityContext.Capabilities = &cri.Capability{AddCapabilities: []string{"FLY"}}
		}, errdefs.IsInvalidArgument},
		"device":          {func(c *cri.ContainerConfig) { c.Devices = []*cri.Device{{HostPath: "/dev/criserver-none"}} }, errdefs.IsInvalidArgument},
		"seccomp profile": {func(c *cri.ContainerConfig) { c.Linux.SecurityContext.SeccompProfilePath = "localhost//none.json" }, errdefs.IsInvalidArgument},
		"target": {func(c *cri.ContainerConfig) {
			c.Linux.SecurityContext.NamespaceOptions = &cri.NamespaceOption{Pid: 3, TargetId: "ab"}
		}, errdefs.IsNotFound},
	} {
		c := shell(name, "exit 0")
		tc.change(c)
		if _, err := m.Create(t.Context(), "pod", c, nil); err == nil || !tc.class(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := m.Create(t.Context(), "other", shell("a", ""), nil); !errdefs.IsNotFound(err) {
		t.Errorf("unknown pod: %v", err)
	}
	b.pods.change(func(p *Pod) { p.Ready = false })
	if _, err := m.Create(t.Context(), "pod", shell("a", ""), nil); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("pod not ready: %v", err)
	}
	if n := len(m.List()); n != 0 {
		t.Errorf("%d containers are left", n)
	}
}

// A retry of a creation that hangs joins it.
func TestRetryJoins(t *testing.T) {
	b := newBed(t)
	hold := make(chan struct{})
	b.images.hold = hold
	m, _ := b.manager()
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { _, err := m.Create(ctx, "pod", shell("slow", "exit 0"), nil); first <- err }()
	<-b.images.entered
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "mount root file system") {
		t.Errorf("the first caller got %v", err)
	}
	type result struct {
		id  string
		err error
	}
	second := make(chan result, 1)
	go func() {
		id, err := m.Create(t.Context(), "pod", shell("slow", "exit 0"), nil)
		second <- result{id, err}
	}()
	close(hold)
	if r := <-second; r.err != nil {
		t.Fatal(r.err)
	}
	if n := len(b.images.entered); n != 0 {
		t.Errorf("mounted %d times more", n)
	}
	// A late retry gets it too; another config under the same name does not.
	if _, err := m.Create(t.Context(), "pod", shell("slow", "exit 0"), nil); err != nil {
		t.Error(err)
	}
	if _, err := m.Create(t.Context(), "pod", shell("slow", "exit 1"), nil); !errdefs.IsAlreadyExists(err) {
		t.Errorf("other config: %v", err)
	}
}

// What cannot be removed stays visible, and goes with a later try.
func TestFailedRemovalIsVisible(t *testing.T) {
	b := newBed(t)
	m, _ := b.manager()
	id := b.run(m, shell("stuck", "exit 0"))
	b.waitExit(m, id)
	b.images.fail(errors.New("device is busy"))
	if err := m.Remove(t.Context(), id); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("remove: %v", err)
	}
	if s, err := m.Get(id); err != nil || s.State != Exited {
		t.Errorf("%+v, %v", s, err)
	}
	b.images.fail(nil)
	if err := m.Remove(t.Context(), id); err != nil {
		t.Error(err)
	}
}

func TestFailedRollbackIsVisible(t *testing.T) {
	b := newBed(t)
	m, _ := b.manager()
	b.images.fail(errors.New("no space"))
	c := shell("unlucky", "exit 0")
	if _, err := m.Create(t.Context(), "pod", c, nil); err == nil || !strings.Contains(err.Error(), "no space") {
		t.Errorf("create: %v", err)
	}
	if l := m.List(); len(l) != 1 || l[0].State != Exited || l[0].Reason != ReasonContainerCannotRun {
		t.Fatalf("%+v", l)
	}
	b.images.fail(nil)
	// The retry clears it away and succeeds.
	b.waitExit(m, b.run(m, c))
	if l := m.List(); len(l) != 1 || l[0].ExitCode != 0 {
		t.Errorf("%+v", l)
	}
}

func TestMountsAndReadonlyRoot(t *testing.T) {
	b := newBed(t)
	m, _ := b.manager()
	host := t.TempDir()
	c := shell("mounts", "echo data > /data/out; touch /x; touch /ro/x; echo done")
	c.Linux.SecurityContext.ReadonlyRootfs = true
	missing := filepath.Join(host, "missing")
	c.Mounts = []*cri.Mount{
		{HostPath: host, ContainerPath: "/data"},
		{HostPath: missing, ContainerPath: "/ro", Readonly: true},
	}
	b.waitExit(m, b.run(m, c))
	b.log("mounts", "stderr F touch: /x: Read-only file system")
	b.log("mounts", "stderr F touch: /ro/x: Read-only file system")
	if got, err := os.ReadFile(filepath.Join(host, "out")); err != nil || string(got) != "data\n" {
		t.Errorf("%q, %v", got, err)
	}
	if info, err := os.Stat(missing); err != nil || !info.IsDir() {
		t.Errorf("missing host path: %v", err)
	}
}

func TestPrivilegedWithSeccompDefault(t *testing.T) {
	b := newBed(t)
	m, _ := b.manager()
	for name, privileged := range map[string]bool{"priv": true, "plain": false} {
		c := shell(name, "mount -t tmpfs none /tmp && echo mounted; exit 0")
		c.Linux.SecurityContext.Privileged = privileged
		c.Linux.SecurityContext.Seccomp = &cri.SecurityProfile{}
		c.Linux.SecurityContext.Capabilities = &cri.Capability{}
		b.waitExit(m, b.run(m, c))
		got, err := os.ReadFile(filepath.Join(b.logs, name+".log"))
		if err != nil || strings.Contains(string(got), "F mounted") != privileged {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
}

func TestUpdateAndStats(t *testing.T) {
	b := newBed(t)
	m, _ := b.manager()
	c := shell("busy", "while :; do :; done")
	c.Linux.Resources = &cri.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, CpuShares: 200}
	id := b.run(m, c)
	if err := m.UpdateResources(t.Context(), id, &cri.LinuxContainerResources{MemoryLimitInBytes: 128 << 20}); err != nil {
		t.Fatal(err)
	}
	s, _ := m.Get(id)
	if s.Resources.GetMemoryLimitInBytes() != 128<<20 || s.Resources.GetCpuShares() != 200 {
		t.Errorf("resources in force: %v", s.Resources)
	}
	if st, err := b.tree.Stats(s.CgroupPath); err != nil || st.Memory.Limit != 128<<20 {
		t.Errorf("limit %d, %v", st.Memory.Limit, err)
	}
	stats, err := m.Stats(id[:8])
	if err != nil || stats.Usage == nil || stats.Usage.CPUUsage == 0 || stats.Usage.Memory.WorkingSet == 0 {
		t.Errorf("stats %+v, %v", stats, err)
	}
	all := slices.Collect(m.StatsOf(func(*Snapshot) bool { return true }))
	if len(all) != 1 || all[0].Container.ID != id {
		t.Errorf("all: %v", all)
	}
	if none := slices.Collect(m.StatsOf(func(*Snapshot) bool { return false })); len(none) != 0 {
		t.Errorf("none: %v", none)
	}
	bad := &cri.LinuxContainerResources{CpusetCpus: "x"}
	if err := m.UpdateResources(t.Context(), id, bad); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad update: %v", err)
	}
}

func TestReopenLog(t *testing.T) {
	b := newBed(t)
	m, _ := b.manager()
	id := b.run(m, shell("log", "while :; do echo tick; sleep 0.05; done"))
	b.log("log", "tick")
	if err := os.Rename(filepath.Join(b.logs, "log.log"), filepath.Join(b.logs, "log.old")); err != nil {
		t.Fatal(err)
	}
	if err := m.ReopenLog(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	b.log("log", "tick")
}

func TestStopPodAndEvents(t *testing.T) {
	b := newBed(t)
	m, _ := b.manager()
	seen := make(chan cri.ContainerEventType, 100)
	cancel := m.Subscribe(func(e Event) { seen <- e.Type })
	defer cancel()
	for _, n := range []string{"a", "b", "c"} {
		b.run(m, shell(n, "sleep 1000"))
	}
	if err := m.StopPod(t.Context(), "pod"); err != nil {
		t.Fatal(err)
	}
	for _, s := range m.List() {
		if s.State != Exited {
			t.Errorf("%+v", s)
		}
	}
	if err := m.RemovePod(t.Context(), "pod"); err != nil {
		t.Fatal(err)
	}
	count := make(map[cri.ContainerEventType]int)
	for range 12 {
		count[<-seen]++
	}
	for e, n := range count {
		if n != 3 {
			t.Errorf("%s came %d times", e, n)
		}
	}
}

// A monitor that is killed takes only the log with it.
func TestMonitorKilled(t *testing.T) {
	b := newBed(t)
	m, _ := b.manager()
	id := b.run(m, shell("orphan", "trap 'exit 5' TERM; echo up; while :; do sleep 0.1; done"))
	b.log("orphan", "up")
	c, _ := m.find(id)
	_, monitor := c.refs()
	if err := monitor.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-c.monitorGone
	for range 500 {
		if s, _ := m.Get(id); s.Message != "" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if s, _ := m.Get(id); s.State != Running || !strings.Contains(s.Message, "monitor") {
		t.Errorf("%+v", s)
	}
	if err := m.Stop(t.Context(), id, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	// The daemon has adopted the container and is told its exit code.
	if s, _ := m.Get(id); s.ExitCode != 5 || s.Message == "" {
		t.Errorf("%+v", s)
	}
}

package container

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/patience"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestCreateRefuses(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	for name, tc := range map[string]struct {
		change func(*cri.ContainerConfig)
		class  func(error) bool
	}{
		"image": {func(c *cri.ContainerConfig) { c.Image.Image = "nope" }, errdefs.IsNotFound},
		"image with a checkpoint": {
			func(c *cri.ContainerConfig) { c.Image.Image = "checkpoint" }, func(err error) bool {
				var image *CheckpointImageError
				return errors.As(err, &image) && image.ImageID == "sha256:2" && errdefs.IsNotImplemented(err)
			},
		},
		"user": {func(c *cri.ContainerConfig) { c.Linux.SecurityContext.RunAsUsername = "bob" }, errdefs.IsInvalidArgument},
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

// withTerminationLog returns a config like a config of the kubelet: the host path of the
// termination log is different in each request.
func withTerminationLog(t *testing.T, name string) *cri.ContainerConfig {
	t.Helper()
	c := shell(name, "exit 0")
	c.Mounts = []*cri.Mount{{ContainerPath: "/dev/termination-log", HostPath: filepath.Join(t.TempDir(), "log")}}
	if err := os.WriteFile(c.Mounts[0].HostPath, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return c
}

// createAndGiveUp begins a creation whose caller gives up during the mount of the root file
// system. The mount continues when proceed is called.
func (b *testBed) createAndGiveUp(m *Manager, c *cri.ContainerConfig) (proceed func()) {
	b.t.Helper()
	hold := make(chan struct{})
	b.images.mu.Lock()
	b.images.hold = hold
	b.images.mu.Unlock()
	ctx, cancel := context.WithCancel(b.t.Context())
	first := make(chan error, 1)
	go func() { _, err := m.Create(ctx, "pod", c, nil); first <- err }()
	<-b.images.entered
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "mount root file system") {
		b.t.Errorf("first caller: %v", err)
	}
	return func() { close(hold) }
}

// TestRetryJoinsCreation checks that a retry waits for the running creation.
func TestRetryJoinsCreation(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	first := withTerminationLog(t, "slow")
	proceed := b.createAndGiveUp(m, first)
	type result struct {
		id  string
		err error
	}
	second, retry := make(chan result, 1), withTerminationLog(t, "slow")
	go func() {
		id, err := m.Create(t.Context(), "pod", retry, nil)
		second <- result{id, err}
	}()
	for m.creates.Waiters("pod/0/slow") == 0 {
		time.Sleep(time.Millisecond)
	}
	proceed()
	r := <-second
	if r.err != nil {
		t.Fatal(r.err)
	}
	if n := len(b.images.entered); n != 0 {
		t.Errorf("%d more mounts", n)
	}
	if s, err := m.Get(r.id); err != nil || s.Mounts[0].GetHostPath() != first.Mounts[0].HostPath {
		t.Errorf("the container does not have the config of the first request: %+v, %v", s, err)
	}
	// A caller has received the id, so only the same config gets it again.
	if id, err := m.Create(t.Context(), "pod", first, nil); err != nil || id != r.id {
		t.Errorf("the same request: %q, %v", id, err)
	}
	_, err := m.Create(t.Context(), "pod", retry, nil)
	if !errdefs.IsAlreadyExists(err) || !strings.Contains(err.Error(), "mounts[0].host_path") {
		t.Errorf("another config: %v", err)
	}
}

// TestRetryGetsUnclaimedContainer creates a container whose caller gives up before the
// creation ends. The retry must return this container, also after a restart of the daemon.
func TestRetryGetsUnclaimedContainer(t *testing.T) {
	for name, restart := range map[string]bool{"same daemon": false, "next daemon": true} {
		t.Run(name, func(t *testing.T) {
			b := newTestBed(t)
			m, stop := b.manager()
			b.createAndGiveUp(m, withTerminationLog(t, "late"))()
			eventually(t, "the container is created", func() bool { return len(m.List()) == 1 })
			if restart {
				stop()
				m, _ = b.manager()
			}
			created := m.List()[0].ID
			if id, err := m.Create(t.Context(), "pod", withTerminationLog(t, "late"), nil); err != nil || id != created {
				t.Errorf("%q, %v; want %q", id, err, created)
			}
			if n := len(b.images.entered); n != 0 {
				t.Errorf("%d more mounts", n)
			}
		})
	}
}

// TestRetryReplacesExitedContainer checks that a retry replaces a container that exited
// before a caller received its id.
func TestRetryReplacesExitedContainer(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	b.createAndGiveUp(m, withTerminationLog(t, "dead"))()
	eventually(t, "the container is created", func() bool { return len(m.List()) == 1 })
	dead := m.List()[0].ID
	if err := m.Stop(t.Context(), dead, 0); err != nil {
		t.Fatal(err)
	}
	id, err := m.Create(t.Context(), "pod", withTerminationLog(t, "dead"), nil)
	if err != nil || id == dead {
		t.Errorf("%q, %v", id, err)
	}
	if l := m.List(); len(l) != 1 || l[0].State != Created {
		t.Errorf("%+v", l)
	}
}

// eventually waits until ok returns true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := patience.Until(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timeout: %s", what)
		}
	}
}

func TestFailedRollbackIsVisible(t *testing.T) {
	b := newTestBed(t)
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
	// The retry removes the container and succeeds.
	b.waitExit(m, b.run(m, c))
	if l := m.List(); len(l) != 1 || l[0].ExitCode != 0 {
		t.Errorf("%+v", l)
	}
}

func TestUserEnvAndDirectory(t *testing.T) {
	b := newTestBed(t)
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
		t.Errorf("the Snapshot has the ids %d:%d %v", s.UID, s.GID, s.SupplementalGroups)
	}
}

func TestTargetPIDNamespace(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	target := b.run(m, shell("target", "sleep 1000"))
	c := shell("debug", "cat /proc/1/cmdline")
	c.Linux.SecurityContext.NamespaceOptions = &cri.NamespaceOption{Pid: cri.NamespaceMode_TARGET, TargetId: target}
	b.waitExit(m, b.run(m, c))
	b.log("debug", "sleep")
}

func TestMountsAndReadonlyRoot(t *testing.T) {
	b := newTestBed(t)
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
	b := newTestBed(t)
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

package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/patience"
	"github.com/criserver/criserver/internal/proc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestLogError(t *testing.T) {
	for log, want := range map[string]string{
		"":                              "",
		"not json":                      "",
		`{"level":"warning","msg":"w"}`: "",
		`{"level":"error","msg":"first"}` + "\n" + `{"level":"error","msg":"last"}`:  "last",
		`{"msg":"crun \u001b[31mred\nline","level":"error","time":"x"}`:              "crun [31mred line",
		`{"level":"error","msg":"a"}` + "\n" + `{"level":"debug","msg":"b"}` + "\n{": "a",
	} {
		if got := LogError([]byte(log)); got != want {
			t.Errorf("%s: %q", log, got)
		}
	}
	long := `{"level":"error","msg":"` + strings.Repeat("ä", maxWords) + `"}`
	if got := LogError([]byte(long)); len(got) > maxWords+len("…") {
		t.Errorf("%d bytes", len(got))
	}
}

func FuzzLogError(f *testing.F) {
	f.Add([]byte(`{"level":"error","msg":"x"}`))
	f.Fuzz(func(t *testing.T, log []byte) {
		if s := LogError(log); len(s) > maxWords+len("…") || strings.ContainsAny(s, "\n\x00\x1b") {
			t.Errorf("%q", s)
		}
	})
}

func TestBounded(t *testing.T) {
	text := bytes.Repeat([]byte("0123456789"), 10000)
	for _, limit := range []int{0, 1, 511, 512, 513, 40000, 200000} {
		b := &bounded{limit: limit}
		n, err := b.ReadFrom(bytes.NewReader(text))
		if want := text[:min(limit, len(text))]; n != int64(len(text)) || err != nil || !bytes.Equal(b.data, want) {
			t.Errorf("limit %d: read %d, kept %d, %v", limit, n, len(b.data), err)
		}
		b = &bounded{limit: limit}
		if _, err := io.Copy(struct{ io.Writer }{b}, bytes.NewReader(text)); err != nil || len(b.data) != min(limit, len(text)) {
			t.Errorf("limit %d written: kept %d, %v", limit, len(b.data), err)
		}
	}
}

// A command that fails is reported in the runtime's own words, from its log or
// else from its standard error.
func TestErrorsQuoteTheRuntime(t *testing.T) {
	for name, tc := range map[string]struct{ script, want string }{
		"log":     {`echo '{"level":"error","msg":"said in log"}' >&3; echo noise >&2; exit 1`, "fake start: said in log: exit status 1"},
		"stderr":  {`echo said on stderr >&2; exit 2`, "fake start: said on stderr: exit status 2"},
		"nothing": {`exit 3`, "fake start: exit status 3"},
	} {
		r := fakeRuntime(t, tc.script)
		if err := r.Start(t.Context(), "id"); err == nil || err.Error() != tc.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCallEndsWithContext(t *testing.T) {
	r := fakeRuntime(t, "exec sleep 1000")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.Start(ctx, "id"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestUpdateHandsResourcesOver(t *testing.T) {
	out := filepath.Join(t.TempDir(), "seen")
	r := fakeRuntime(t, "cat /proc/self/fd/4 > "+out+"; echo \"$@\" >> "+out)
	if err := r.Update(t.Context(), "id", &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(5))}}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if err != nil || !strings.Contains(string(got), `{"shares":5}`) || !strings.Contains(string(got), "update --resources /proc/self/fd/4 id") {
		t.Errorf("%s, %v", got, err)
	}
}

func fakeRuntime(t *testing.T, script string) *Runtime {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fake")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return &Runtime{Name: "fake", Path: path, Root: filepath.Join(t.TempDir(), "root")}
}

func TestCgroupsPath(t *testing.T) {
	r := &Runtime{}
	if c, p := r.CgroupsPath("/a/pod", "id"); c != "/a/pod/criserver-id" || p != c {
		t.Errorf("cgroupfs: %s, %s", c, p)
	}
	r.SystemdCgroup = true
	if c, p := r.CgroupsPath("/kubepods.slice/kubepods-pod1.slice", "id"); c != "kubepods-pod1.slice:criserver:id" || p != "/kubepods.slice/kubepods-pod1.slice/criserver-id.scope" {
		t.Errorf("systemd: %s, %s", c, p)
	}
}

func TestChooser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("running a container needs root")
	}
	runc, err := filepath.Abs("../bin/runc")
	if err == nil {
		_, err = os.Stat(runc)
	}
	if err != nil {
		t.Fatal("no bin/runc: run `make tools`")
	}
	tree, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}
	parent := fmt.Sprintf("/criserver-test-oci-%d", os.Getpid())
	if err := tree.Make(parent); err != nil {
		t.Fatal(err)
	}
	defer tree.Release(parent)
	host, err := DetectHost(tree)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := &Chooser{RunDir: dir, Prober: "/bin/busybox", ProberArgs: []string{"true"}, CgroupParent: parent, Cgroups: tree, Builder: NewBuilder(host, Defaults{})}
	count := filepath.Join(t.TempDir(), "count")
	bad := fakeRuntime(t, "echo x >> "+count+"; echo '{\"level\":\"error\",\"msg\":\"not on this machine\"}' >&3; exit 1")
	good := &Runtime{Name: "good", Path: runc, Root: filepath.Join(dir, "runc")}
	for range 2 {
		got, err := c.Choose(t.Context(), bad, good)
		if err != nil || got != good {
			t.Fatalf("got %v, %v", got, err)
		}
	}
	// One run and one delete: the verdict of the first time was kept.
	if b, err := os.ReadFile(count); err != nil || len(b) != 4 {
		t.Errorf("the bad one was called %d times, %v", len(b)/2, err)
	}
	if _, err := c.Choose(t.Context(), bad); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "not on this machine") {
		t.Errorf("none: %v", err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "prove-*"))
	if len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := good.Features(t.Context()); err != nil {
		t.Error(err)
	}
	if v, err := good.Version(t.Context()); err != nil || !strings.HasPrefix(v, "runc version") {
		t.Errorf("%q, %v", v, err)
	}
}

// TestChooserKeepsNoVerdictOfALateTrial has a runtime that is slow at first.
func TestChooserKeepsNoVerdictOfALateTrial(t *testing.T) {
	tree, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}
	host, err := DetectHost(tree)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	slow := filepath.Join(dir, "slow")
	if err := os.WriteFile(slow, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r := fakeRuntime(t, "[ ! -e "+slow+" ] || { case \"$*\" in *delete*) ;; *) exec sleep 600;; esac; }")
	c := &Chooser{RunDir: dir, Prober: "/bin/true", CgroupParent: "/test", Cgroups: tree, Builder: NewBuilder(host, Defaults{}), Within: 200 * time.Millisecond}
	if _, err := c.Choose(t.Context(), r); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a late trial: %v", err)
	}
	if err := os.Remove(slow); err != nil {
		t.Fatal(err)
	}
	c.Within = time.Minute
	if _, err := c.Choose(t.Context(), r); err != nil {
		t.Errorf("the runtime is fast now: %v", err)
	}
}

// TestChooserRemovesTheCgroupOfAKilledRuntime kills a runtime, by the deadline of
// the trial, that has made a cgroup and not written its state.
func TestChooserRemovesTheCgroupOfAKilledRuntime(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making a cgroup needs root")
	}
	tree, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}
	parent := fmt.Sprintf("/criserver-test-oci-killed-%d", os.Getpid())
	if err := tree.Make(parent); err != nil {
		t.Fatal(err)
	}
	defer tree.Release(parent)
	host, err := DetectHost(tree)
	if err != nil {
		t.Fatal(err)
	}
	dir, where := t.TempDir(), tree.Dir("memory", parent)
	made := filepath.Join(dir, "made")
	r := fakeRuntime(t, "case \"$*\" in *delete*) exit 1;; esac; for id; do :; done; mkdir "+where+"/criserver-$id && touch "+made+"; exec sleep 600")
	c := &Chooser{
		RunDir: dir, Prober: "/bin/true", CgroupParent: parent, Cgroups: tree, Builder: NewBuilder(host, Defaults{}),
		Within: patience.For(2 * time.Second),
	}
	check := func() {
		t.Helper()
		left, err := filepath.Glob(where + "/criserver-*")
		if err != nil || len(left) > 0 {
			t.Errorf("cgroups are left: %v, %v", left, err)
		}
		if left, err := filepath.Glob(filepath.Join(dir, provePrefix+"*")); err != nil || len(left) > 0 {
			t.Errorf("bundles are left: %v, %v", left, err)
		}
	}
	if _, err := c.Choose(t.Context(), r); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a trial whose runtime hangs: %v", err)
	}
	if _, err := os.Stat(made); err != nil {
		t.Fatalf("the runtime has made no cgroup: %v", err)
	}
	check()

	// The next daemon removes what a killed one left.
	id := ids.New()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, provePrefix+id), 0o700), os.Mkdir(where+"/criserver-"+id, 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Choose(t.Context(), r); err == nil {
		t.Error("a runtime that hangs was chosen")
	}
	check()
}

func TestHostDevice(t *testing.T) {
	got, err := HostDevice("/dev/null", "/dev/other", "rw")
	if err != nil || len(got) != 1 || got[0].Path != "/dev/other" || got[0].Type != "c" || got[0].Major != 1 || got[0].Minor != 3 || got[0].Access != "rw" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, path := range []string{"/dev/criserver-none", "/etc/passwd"} {
		if got, err := HostDevice(path, path, "rw"); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v, %v", path, got, err)
		}
	}
	all, err := AllDevices()
	if err != nil || len(all) == 0 {
		t.Fatalf("%d, %v", len(all), err)
	}
	for _, d := range all {
		if strings.HasPrefix(d.Path, "/dev/pts/") || d.Path == "/dev/ptmx" || d.Path == "/dev/console" {
			t.Errorf("a container has %s of its own", d.Path)
		}
	}
}

func TestCheckPropagation(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	const private, slave, shared = cri.MountPropagation_PROPAGATION_PRIVATE, cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, cri.MountPropagation_PROPAGATION_BIDIRECTIONAL
	for _, tc := range []struct {
		flag uintptr
		ok   map[cri.MountPropagation]bool
	}{
		{unix.MS_PRIVATE, map[cri.MountPropagation]bool{private: true}},
		{unix.MS_SHARED, map[cri.MountPropagation]bool{private: true, slave: true, shared: true}},
	} {
		if err := unix.Mount("", dir, "", tc.flag, ""); err != nil {
			t.Fatal(err)
		}
		for _, p := range []cri.MountPropagation{private, slave, shared} {
			if err := CheckPropagation(sub, p); (err == nil) != tc.ok[p] {
				t.Errorf("flag %#x, %s: %v", tc.flag, p, err)
			}
		}
	}
}

// Descendants die with those that have left their parents, and the caller's
// own session does not.
func TestKillTree(t *testing.T) {
	cmd := exec.Command("sh", "-c", "setsid sh -c '(sleep 1000 &); sleep 1000 & wait' & sleep 1000 & wait")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	own, err := unix.Getsid(0)
	if err != nil {
		t.Fatal(err)
	}
	var tasks map[int]task
	for range 500 {
		var err error
		if tasks, err = allTasks(); err != nil {
			t.Fatal(err)
		}
		if len(descendants(tasks, cmd.Process.Pid, false, make(map[int]bool), own)) >= 4 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	go func() { ended <- cmd.Wait() }()
	victims := descendants(tasks, cmd.Process.Pid, false, make(map[int]bool), own)
	if len(victims) < 4 {
		t.Fatalf("only %d descendants", len(victims))
	}
	if err := killTree(cmd.Process.Pid, false); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the parent waits for children that should be dead")
	}
	for _, v := range victims {
		if v.ref.Alive() {
			t.Errorf("%v is alive", v.ref)
		}
	}
}

func TestReapOrphans(t *testing.T) {
	if err := AdoptOrphans(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sh", "-c", "sleep 0.2 >/dev/null & echo $!").Output()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	orphan, err := proc.Identify(pid)
	if err != nil {
		t.Fatal(err)
	}
	var dead map[proc.Ref]bool // other tests may have left orphans too
	for range 6000 {
		if dead = reapOrphans(dead); dead[orphan] {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := proc.Identify(pid); err != nil {
		t.Fatalf("it was reaped at first sight: %v", err)
	}
	if left := reapOrphans(dead); left[orphan] {
		t.Errorf("left: %v", left)
	}
	if _, err := proc.Identify(pid); !errors.Is(err, proc.ErrGone) {
		t.Errorf("it is still there: %v", err)
	}
}

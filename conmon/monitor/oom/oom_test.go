package oom

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/monitor/sys"
)

func TestOOMFiles(t *testing.T) {
	const top = "/sys/fs/cgroup"
	tests := []struct{ name, content, file, parent string }{
		{"v2", "0::/kubepods/pod1/c1\n", top + "/kubepods/pod1/c1/memory.events", top + "/kubepods/pod1/memory.events"},
		{"v2 scope", "0::/a.slice/a-b.slice/criserver-c.scope\n", top + "/a.slice/a-b.slice/criserver-c.scope/memory.events", top + "/a.slice/a-b.slice/memory.events"},
		{
			"v2 cgroup below a scope", "0::/a.slice/criserver-c.scope/container\n",
			top + "/a.slice/criserver-c.scope/container/memory.events", top + "/a.slice/memory.events",
		},
		{"v2 root", "0::/c\n", top + "/c/memory.events", top + "/memory.events"},
		{"v1", "3:cpu,cpuacct:/x\n2:memory:/m/c1\n1:name=systemd:/x\n", top + "/memory/m/c1/memory.oom_control", ""},
		{"hybrid", "2:hugetlb,memory:/m/c1\n0::/x\n", top + "/memory/m/c1/memory.oom_control", ""},
		{"hybrid, v2 first", "0::/x\n2:memory:/m:/c1\n", top + "/memory/m:/c1/memory.oom_control", ""},
		{"similar controller name", "2:xmemory:/m\n", "", ""},
		{"empty", "", "", ""},
		{"malformed", "::\nmemory\n", "", ""},
	}
	for _, tt := range tests {
		if file, parent := oomFiles([]byte(tt.content)); file != tt.file || parent != tt.parent {
			t.Errorf("%s: %q and %q, want %q and %q", tt.name, file, parent, tt.file, tt.parent)
		}
	}
}

func TestParseKills(t *testing.T) {
	for content, want := range map[string]uint64{
		"low 0\nhigh 0\nmax 7\noom 3\noom_kill 0\noom_group_kill 0\n":  0,
		"low 0\nhigh 0\nmax 7\noom 3\noom_kill 12\noom_group_kill 1\n": 12,
		"oom_kill_disable 0\nunder_oom 0\noom_kill 1\n":                1,
		"oom_kill_disable 1\nunder_oom 1\n":                            0,
		"":                                                             0,
		"oom_kill x":                                                   0,
	} {
		if got := parseKills([]byte(content)); got != want {
			t.Errorf("%q: %d, want %d", content, got, want)
		}
	}
}

func exitStatus(code int) unix.WaitStatus { return unix.WaitStatus(code << 8) }

func signalled(sig unix.Signal) unix.WaitStatus { return unix.WaitStatus(sig) }

// oomTestbed contains the files of a container's cgroup and of its slice.
type oomTestbed struct {
	t            *testing.T
	watch        *Watch
	file, parent string
}

func newOOMTestbed(t *testing.T) *oomTestbed {
	b := &oomTestbed{t: t, file: filepath.Join(t.TempDir(), "events"), parent: filepath.Join(t.TempDir(), "events")}
	b.set(b.file, "0")
	b.set(b.parent, "3") // other containers of the slice
	poll := new(sys.Poller)
	if err := poll.Open(); err != nil {
		t.Fatal(err)
	}
	w := New(poll)
	b.watch = &w
	b.watch.open(b.file, b.parent)
	t.Cleanup(b.watch.close)
	return b
}

func (b *oomTestbed) set(file, kills string) {
	b.t.Helper()
	if err := os.WriteFile(file, []byte("max 9\noom_kill "+kills+"\n"), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// remove makes the container's file fail as the file of a removed cgroup does.
func (b *oomTestbed) remove() {
	b.t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		b.t.Fatal(err)
	}
	_ = unix.Close(fds[1])
	if err := unix.Dup3(fds[0], b.watch.fd, unix.O_CLOEXEC); err != nil {
		b.t.Fatal(err)
	}
	_ = unix.Close(fds[0])
}

func TestOOMWatch(t *testing.T) {
	for name, tc := range map[string]struct {
		before func(b *oomTestbed)
		status unix.WaitStatus
		known  bool
		want   bool
	}{
		"killed":                       {func(b *oomTestbed) { b.set(b.file, "1") }, signalled(unix.SIGKILL), true, true},
		"status of a killed child":     {func(b *oomTestbed) { b.set(b.file, "1") }, exitStatus(137), true, true},
		"unknown status":               {func(b *oomTestbed) { b.set(b.file, "1") }, exitStatus(0), false, true},
		"another status":               {func(b *oomTestbed) { b.set(b.file, "1") }, exitStatus(3), true, false},
		"another signal":               {func(b *oomTestbed) { b.set(b.file, "1") }, signalled(unix.SIGTERM), true, false},
		"killed by another process":    {func(*oomTestbed) {}, signalled(unix.SIGKILL), true, false},
		"noticed, then removed":        {func(b *oomTestbed) { b.set(b.file, "1"); b.watch.Ready(0); b.remove() }, signalled(unix.SIGKILL), true, true},
		"removed unnoticed":            {func(b *oomTestbed) { b.set(b.parent, "4"); b.remove() }, signalled(unix.SIGKILL), true, true},
		"removed without a kill":       {func(b *oomTestbed) { b.remove() }, signalled(unix.SIGKILL), true, false},
		"removed, kill of a neighbour": {func(b *oomTestbed) { b.set(b.parent, "4"); b.watch.Ready(0); b.remove() }, signalled(unix.SIGKILL), true, false},
		"long after the kill of a child": {func(b *oomTestbed) {
			b.set(b.file, "1")
			b.watch.Ready(0)
			b.watch.killedAt = b.watch.killedAt.Add(-2 * oomWindow)
		}, signalled(unix.SIGKILL), true, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newOOMTestbed(t)
			tc.before(b)
			if got := b.watch.KilledContainer(tc.status, tc.known); got != tc.want {
				t.Errorf("OOMKilled is %t, want %t", got, tc.want)
			}
			if b.watch.fd != -1 {
				t.Error("the file is still open")
			}
		})
	}
}

// TestOOMWatchOnCgroupV1 checks the watch of cgroup v1, which has one file and reads it once.
func TestOOMWatchOnCgroupV1(t *testing.T) {
	file := filepath.Join(t.TempDir(), "memory.oom_control")
	for content, want := range map[string]bool{"oom_kill_disable 0\noom_kill 1\n": true, "oom_kill 0\n": false} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		o := New(new(sys.Poller))
		o.open(file, "")
		if got := o.KilledContainer(signalled(unix.SIGKILL), true); got != want {
			t.Errorf("%q: OOMKilled is %t, want %t", content, got, want)
		}
	}
	for _, file := range []string{"", "/nonexistent"} {
		o := New(new(sys.Poller))
		o.open(file, "")
		if o.KilledContainer(signalled(unix.SIGKILL), true) {
			t.Errorf("OOMKilled in cgroup %q", file)
		}
	}
}

// TestOOMKillTimeIsSetOnce checks that the time of a kill is the time at which the monitor first
// saw the count.
func TestOOMKillTimeIsSetOnce(t *testing.T) {
	b := newOOMTestbed(t)
	b.set(b.file, "1")
	b.watch.Ready(0)
	first := b.watch.killedAt
	time.Sleep(time.Millisecond)
	b.watch.Ready(0)
	if !b.watch.killedAt.Equal(first) || first.IsZero() {
		t.Errorf("time of the kill is %v, then %v", first, b.watch.killedAt)
	}
}

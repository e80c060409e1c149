package cgroup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newThreadedCgroup makes a cgroup with two processes. One process is in a threaded cgroup
// below. Another cgroup below is "domain invalid".
func newThreadedCgroup(t *testing.T) (tr *Tree, p string, cmds [2]*exec.Cmd) {
	t.Helper()
	tr = unifiedTree(t)
	p = fmt.Sprintf("/criserver-test-threaded-%d", os.Getpid())
	dir := tr.Dir("", p)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		for _, cmd := range cmds {
			if cmd != nil {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}
		}
		if err := errors.Join(tr.Kill(ctx, p), tr.Remove(p)); err != nil {
			t.Error(err)
		}
	})
	for _, d := range []string{dir, dir + "/threads", dir + "/threads/below", dir + "/invalid"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := write(dir+"/threads/cgroup.type", "threaded"); err != nil {
		t.Fatal(err)
	}
	if got := readText(dir + "/invalid/cgroup.type"); got != "domain invalid" {
		t.Fatalf("the type of the sibling is %q", got)
	}
	for i, target := range []string{dir, dir + "/threads"} {
		cmd := exec.Command("sh", "-c", "echo $$ >"+dir+"/cgroup.procs && echo $$ >"+target+"/cgroup.threads && echo in; exec sleep 1000")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds[i] = cmd
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "in\n" {
			t.Fatalf("the process is not in %s: %q, %v", target, line, err)
		}
	}
	return tr, p, cmds
}

func TestPidsOfThreadedCgroups(t *testing.T) {
	tr, p, cmds := newThreadedCgroup(t)
	if _, err := os.ReadFile(filepath.Join(tr.Dir("", p), "threads", "cgroup.procs")); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Fatalf("cgroup.procs of a threaded cgroup: %v", err)
	}
	both := []int{cmds[0].Process.Pid, cmds[1].Process.Pid}
	slices.Sort(both)
	for q, want := range map[string][]int{p: both, p + "/threads": both[1:], p + "/threads/below": nil, p + "/invalid": nil} {
		if q == p+"/threads" {
			want = []int{cmds[1].Process.Pid}
		}
		if got, err := tr.Pids(q); err != nil || !slices.Equal(got, want) {
			t.Errorf("processes of %s: %v, %v; want %v", q, got, err, want)
		}
	}
	for _, q := range []string{p, p + "/threads", p + "/invalid"} {
		if _, err := tr.Stats(q); err != nil {
			t.Errorf("stats of %s: %v", q, err)
		}
		if _, err := tr.Limits(q); err != nil {
			t.Errorf("limits of %s: %v", q, err)
		}
	}
}

func TestKillThreadedCgroups(t *testing.T) {
	for _, below := range []string{"", "/threads"} {
		t.Run(strconv.Quote(below), func(t *testing.T) {
			tr, p, cmds := newThreadedCgroup(t)
			reaped := make(chan struct{}, 2)
			for _, cmd := range cmds {
				go func() { _ = cmd.Wait(); reaped <- struct{}{} }()
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := tr.Kill(ctx, p+below); err != nil {
				t.Fatal(err)
			}
			<-reaped
			if below == "" {
				<-reaped // a zombie still has its name
			}
			other := readText("/proc/" + strconv.Itoa(cmds[0].Process.Pid) + "/comm")
			if killed := !strings.Contains(other, "sleep"); killed != (below == "") {
				t.Errorf("the process in the domain cgroup was killed: %t", killed)
			}
			if err := tr.Kill(ctx, p); err != nil {
				t.Fatal(err)
			}
			if below != "" {
				<-reaped
			}
		})
	}
}

package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// fakeConn answers each request with err, or with the result of a job. With neither, the
// job never ends.
type fakeConn struct {
	result string
	err    error
	closed int
}

func (f *fakeConn) answer(ch chan<- string) (int, error) {
	if f.err == nil && f.result != "" {
		ch <- f.result
	}
	return 1, f.err
}

func (f *fakeConn) StartTransientUnitContext(_ context.Context, _, _ string, _ []dbus.Property, ch chan<- string) (int, error) {
	return f.answer(ch)
}

func (f *fakeConn) StopUnitContext(_ context.Context, _, _ string, ch chan<- string) (int, error) {
	return f.answer(ch)
}

func (f *fakeConn) ListUnitsByPatternsContext(_ context.Context, _, patterns []string) ([]dbus.UnitStatus, error) {
	return []dbus.UnitStatus{{Name: "a.slice"}, {Name: strings.Join(patterns, " ")}}, f.err
}

func (f *fakeConn) Close() { f.closed++ }

// manager returns a Manager that uses the fake.
func (f *fakeConn) manager() *Manager {
	return &Manager{dial: func(context.Context) (conn, error) { return f, nil }}
}

func TestJobs(t *testing.T) {
	for name, tc := range map[string]struct {
		conn        *fakeConn
		start, stop string // text of the errors, "" for no error
	}{
		"done":         {&fakeConn{result: "done"}, "", ""},
		"failed":       {&fakeConn{result: "failed"}, `start a.scope: the job ended with the result "failed"`, `stop b.slice: the job ended with the result "failed"`},
		"refused":      {&fakeConn{err: errors.New("denied")}, "start a.scope: denied", "stop b.slice: denied"},
		"no such unit": {&fakeConn{err: godbus.Error{Name: noSuchUnit}}, "start a.scope: org.freedesktop.systemd1.NoSuchUnit", ""},
		"no answer":    {&fakeConn{}, "start a.scope: wait for the job: context deadline exceeded", "stop b.slice: wait for the job: context deadline exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := tc.conn.manager()
				for _, call := range []struct {
					err  error
					want string
				}{
					{m.StartScope(t.Context(), Scope{Name: "a.scope", Slice: "b.slice", PID: 1}), tc.start},
					{m.Stop(t.Context(), "b.slice"), tc.stop},
				} {
					if (call.err == nil) != (call.want == "") || call.err != nil && !strings.Contains(call.err.Error(), call.want) {
						t.Errorf("got %v, want %q", call.err, call.want)
					}
				}
				if tc.conn.closed != 2 {
					t.Errorf("%d connections were closed, want 2", tc.conn.closed)
				}
			})
		})
	}
}

func TestNoSystemd(t *testing.T) {
	m := &Manager{dial: func(context.Context) (conn, error) { return nil, errors.New("no socket") }}
	if err := m.Stop(t.Context(), "a.slice"); err == nil || err.Error() != "stop a.slice: no socket" {
		t.Errorf("got %v", err)
	}
	if _, err := m.List(t.Context(), "*"); err == nil || err.Error() != "list units *: no socket" {
		t.Errorf("got %v", err)
	}
}

// TestRealSystemd starts a scope for a process, lists the slice of the scope, and stops
// the slice.
func TestRealSystemd(t *testing.T) {
	if _, err := os.Lstat("/run/systemd/system"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and systemd as the init process")
	}
	m := &Manager{}
	id := fmt.Sprint(os.Getpid())
	slice, scope := "criservertest-"+id+".slice", "criservertest-"+id+".scope"
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	if err := m.StartScope(t.Context(), Scope{Name: scope, Slice: slice, Description: "a test", PID: cmd.Process.Pid}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", cmd.Process.Pid))
	if err != nil || !strings.Contains(string(b), path.Join("/criservertest.slice", slice, scope)) {
		t.Errorf("the process is in %q, %v", b, err)
	}
	if names, err := m.List(t.Context(), "criservertest-*.slice"); err != nil || !slices.Contains(names, slice) {
		t.Errorf("units %v, %v", names, err)
	}
	for range 2 { // the second time the unit is not loaded
		if err := m.Stop(t.Context(), slice); err != nil {
			t.Error(err)
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the process was not killed")
	}
	if names, err := m.List(t.Context(), "criservertest-"+id+"*"); err != nil || len(names) > 0 {
		t.Errorf("units after the stop: %v, %v", names, err)
	}
	if err := m.Stop(t.Context(), "criservertest.slice"); err != nil {
		t.Error(err)
	}
}

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

// fakeConn answers requests with a result, with an error, or with no result at
// all.
type fakeConn struct {
	result string
	err    error
	closed int
	asked  []string
}

func (f *fakeConn) answer(what string, ch chan<- string) (int, error) {
	f.asked = append(f.asked, what)
	if f.err == nil && f.result != "" {
		ch <- f.result
	}
	return 1, f.err
}

func (f *fakeConn) StartTransientUnitContext(_ context.Context, name, mode string, p []dbus.Property, ch chan<- string) (int, error) {
	return f.answer(fmt.Sprint("start ", name, " ", mode, " ", len(p)), ch)
}

func (f *fakeConn) StopUnitContext(_ context.Context, name, mode string, ch chan<- string) (int, error) {
	return f.answer("stop "+name+" "+mode, ch)
}

func (f *fakeConn) ListUnitsByPatternsContext(_ context.Context, _, patterns []string) ([]dbus.UnitStatus, error) {
	return []dbus.UnitStatus{{Name: "a.slice"}, {Name: strings.Join(patterns, " ")}}, f.err
}

func (f *fakeConn) Close() { f.closed++ }

func (f *fakeConn) manager() *Manager {
	return &Manager{connect: func(context.Context) (conn, error) { return f, nil }}
}

func TestJobs(t *testing.T) {
	for name, tc := range map[string]struct {
		conn        *fakeConn
		start, stop string // what the errors say; "" for none
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
					t.Errorf("%d of 2 connections were closed", tc.conn.closed)
				}
			})
		})
	}
}

func TestNoSystemd(t *testing.T) {
	m := &Manager{connect: func(context.Context) (conn, error) { return nil, errors.New("no socket") }}
	if err := m.Stop(t.Context(), "a.slice"); err == nil || err.Error() != "stop a.slice: no socket" {
		t.Errorf("got %v", err)
	}
	if _, err := m.List(t.Context(), "*"); err == nil || err.Error() != "list units *: no socket" {
		t.Errorf("got %v", err)
	}
}

// TestRealSystemd starts a scope for a process, finds it, and stops its slice.
func TestRealSystemd(t *testing.T) {
	if _, err := os.Lstat("/run/systemd/system"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and a machine that systemd runs")
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
	for range 2 { // the second time the unit is unknown
		if err := m.Stop(t.Context(), slice); err != nil {
			t.Error(err)
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the process has ended by itself")
	}
	if names, err := m.List(t.Context(), "criservertest-"+id+"*"); err != nil || len(names) > 0 {
		t.Errorf("left: %v, %v", names, err)
	}
	if err := m.Stop(t.Context(), "criservertest.slice"); err != nil {
		t.Error(err)
	}
}

package criu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// script writes a program with the name criu.
func script(t *testing.T, path, body string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho run >>"+filepath.Dir(path)+"/runs\n"+body), 0o755); err != nil {
		t.Fatal(err)
	}
}

const works = `case $1 in --version) printf 'Version: 9.9\nGitID: x\n';; check) echo Looks good.;; esac
`

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "criu")
	c := &Checker{Configured: func() string { return path }}
	if _, err := c.Last(); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("before the first check: got %v", err)
	}
	if _, err := c.Check(t.Context()); !errors.Is(err, errdefs.ErrNotImplemented) {
		t.Errorf("missing program: got %v", err)
	}
	script(t, path, works)
	for range 3 {
		if p, err := c.Check(t.Context()); err != nil || p != (Program{path, "9.9"}) {
			t.Errorf("got %+v, %v", p, err)
		}
	}
	if p, err := c.Last(); err != nil || p.Version != "9.9" {
		t.Errorf("got %+v, %v", p, err)
	}
	if runs, err := os.ReadFile(filepath.Join(dir, "runs")); err != nil || strings.Count(string(runs), "run") != 2 {
		t.Errorf("the program ran %d times, %v; want 2", strings.Count(string(runs), "run"), err)
	}

	script(t, path, works+`case $1 in check) sleep 1000 &;; esac`)
	_ = os.Chtimes(path, time.Time{}, time.Now().Add(30*time.Minute))
	if p, err := c.Check(t.Context()); err != nil || p.Version != "9.9" {
		t.Errorf("program with a child that keeps its output open: got %+v, %v", p, err)
	}
	script(t, path, `case $1 in --version) echo Version: 9.9;; *) echo "Error (x.c:1): no clone"; exit 1;; esac`)
	_ = os.Chtimes(path, time.Time{}, time.Now().Add(time.Hour))
	_, err := c.Check(t.Context())
	if !errors.Is(err, errdefs.ErrNotImplemented) || !strings.Contains(err.Error(), "no clone") {
		t.Errorf("program that does not work: got %v", err)
	}
	script(t, path, "exit 3")
	_ = os.Chtimes(path, time.Time{}, time.Now().Add(2*time.Hour))
	if _, err := c.Check(t.Context()); !errors.Is(err, errdefs.ErrNotImplemented) {
		t.Errorf("program without a version: got %v", err)
	}
}

// TestCheckTimeout checks that a check that does not end in time has no result, and that the next check runs the
// program again.
func TestCheckTimeout(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "criu")
	script(t, path, `case $1 in --version) echo Version: 9.9;; check) [ -e `+dir+`/fast ] || sleep 1000;; esac`)
	c := &Checker{Configured: func() string { return path }, timeout: 100 * time.Millisecond}
	for _, get := range []func() (Program, error){func() (Program, error) { return c.Check(t.Context()) }, c.Last} {
		if p, err := get(); !errors.Is(err, errdefs.ErrUnavailable) || errors.Is(err, errdefs.ErrNotImplemented) {
			t.Errorf("slow program: got %+v, %v, want ErrUnavailable", p, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "fast"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.timeout = 0
	if p, err := c.Check(t.Context()); err != nil || p.Version != "9.9" {
		t.Errorf("fast program: got %+v, %v", p, err)
	}
	if p, err := c.Last(); err != nil || p.Version != "9.9" {
		t.Errorf("last result: got %+v, %v", p, err)
	}
}

// TestPath checks that the program is found in the PATH.
func TestPath(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	script(t, filepath.Join(dir, "criu"), works)
	c := &Checker{Configured: func() string { return "" }}
	if p, err := c.Check(t.Context()); err != nil || p.Path != filepath.Join(dir, "criu") {
		t.Errorf("got %+v, %v", p, err)
	}
	t.Setenv("PATH", "/nowhere")
	if _, err := c.Check(t.Context()); !errors.Is(err, errdefs.ErrNotImplemented) {
		t.Errorf("no criu in the PATH: got %v", err)
	}
}

// TestCheckCancelled checks that the end of the context ends a check, although a process that criu has started has the
// output of criu open.
func TestCheckCancelled(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "criu")
	script(t, path, `case $1 in --version) echo Version: 9.9;; check) echo checking >`+dir+`/checking; sleep 1000; echo;; esac`)
	c := &Checker{Configured: func() string { return path }}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := c.Check(ctx)
		done <- err
	}()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, "checking")); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("timeout: the check does not begin")
		}
	}
	cancel()
	select {
	case err := <-done:
		if err == nil {
			t.Error("a check that was cancelled returned no error")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("timeout: the check does not end")
	}
}

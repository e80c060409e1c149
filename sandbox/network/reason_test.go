package network

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestReason checks that each state of the configuration has its reason, and that there is a reason exactly if Status
// returns an error.
func TestReason(t *testing.T) {
	conf, bin := t.TempDir(), t.TempDir()
	n := New(Config{ConfDirs: []string{conf}, BinDirs: []string{bin}, CacheDir: t.TempDir()})
	check := func(want string) {
		t.Helper()
		if got := n.Reason(); got != want || (got == "") != (n.Status() == nil) || got != "" && !slices.Contains(Reasons(), got) {
			t.Errorf("got reason %q and status %v, want %q", got, n.Status(), want)
		}
	}
	reload := func(content string) {
		t.Helper()
		if content != "" {
			writeFile(t, conf, "10-net.conflist", content)
		}
		if _, err := n.Reload(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	check(ReasonNotLoaded)
	reload("")
	check(ReasonNoNetwork)
	reload("{")
	check(ReasonInvalid)
	reload(`{"cniVersion":"1.1.0","name":"net","plugins":[{"type":"some"}]}`)
	check(ReasonPluginMissing)
	if err := os.WriteFile(filepath.Join(bin, "some"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	check(ReasonChecking)
	n.answer.Store(&statusAnswer{conf: n.loaded.Load(), err: errors.New("the agent does not run")})
	check(ReasonPlugin)
	n.answer.Store(&statusAnswer{conf: n.loaded.Load()})
	check("")
}

package network

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

// newSlowNetwork puts an nft that sleeps into the PATH, and returns a Network on a bridge with a
// plugin whose STATUS sleeps. Both read the seconds from files, so that a test can change them with
// set.
func newSlowNetwork(t *testing.T, nftSeconds, statusSeconds string) (n *Network, set func(file, seconds string)) {
	t.Helper()
	dir := t.TempDir()
	set = func(file, seconds string) {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(seconds), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	set("nft-seconds", nftSeconds)
	set("status-seconds", statusSeconds)
	program := func(name, body string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+body), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program("nft", `echo "$@" >>`+dir+`/nft-calls; sleep "$(cat `+dir+`/nft-seconds)"`)
	plugin := `[ "$CNI_COMMAND" = VERSION ] && { echo '{"cniVersion":"1.1.0","supportedVersions":["1.1.0"]}'; exit; }
[ "$CNI_COMMAND" = STATUS ] && sleep "$(cat ` + dir + `/status-seconds)"; exit 0`
	for _, name := range []string{"bridge", "portmap", "host-local"} {
		program(name, plugin)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	const conf = `{"cniVersion":"1.1.0","name":"slow","plugins":[
{"type":"bridge","bridge":"crislow0","isGateway":true,"ipMasq":true,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.77.0.0/16"}]]}},
{"type":"portmap","capabilities":{"portMappings":true}}]}`
	if err := os.WriteFile(filepath.Join(dir, "10-slow.conflist"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	return New(Config{ConfDirs: []string{dir}, BinDirs: []string{dir}, CacheDir: filepath.Join(dir, "cache")}), set
}

// TestReloadTimeout checks that a timeout of nft decides nothing: the network is not ready, and the
// next attempt has the same result as on a fast machine.
func TestReloadTimeout(t *testing.T) {
	n, set := newSlowNetwork(t, "600", "0")
	changed, err := n.Reload(t.Context(), 100*time.Millisecond)
	if changed || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("changed %v, %v", changed, err)
	}
	if err := n.Status(); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "not ready yet") {
		t.Errorf("status %v", err)
	}
	set("nft-seconds", "0")
	if changed, err := n.Reload(t.Context(), time.Minute); !changed || err != nil {
		t.Fatalf("changed %v, %v", changed, err)
	}
	l := n.loaded.Load().list
	if l == nil || l.hostPorts == nil || l.masquerade == nil {
		t.Fatalf("the plugins map host ports or masquerade: %+v", l)
	}
}

// TestReloadTimeoutKeepsNetwork checks that the earlier configuration stays valid if nft times out for a new one.
func TestReloadTimeoutKeepsNetwork(t *testing.T) {
	n, set := newSlowNetwork(t, "0", "0")
	if _, err := n.Reload(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(n.cfg().ConfDirs[0], "10-slow.conflist")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(b), "10.77.0.0", "10.78.0.0", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	set("nft-seconds", "600")
	if _, err := n.Reload(t.Context(), 100*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if l := n.loaded.Load(); l.err != nil || !strings.Contains(string(l.list.raw), "10.77.0.0") {
		t.Errorf("%+v, %v", l.list, l.err)
	}
}

// TestStatusBeforeAnswer checks that the network is not ready before the plugins have answered
// STATUS, and that WaitChecked returns after the answer.
func TestStatusBeforeAnswer(t *testing.T) {
	n, _ := newSlowNetwork(t, "0", "2")
	runNetwork(t, n)
	for n.loaded.Load().list == nil {
		time.Sleep(time.Millisecond)
	}
	if err := n.Status(); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "have not answered STATUS") {
		t.Errorf("status before the answer: %v", err)
	}
	if err := n.WaitChecked(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.Status(); err != nil {
		t.Errorf("status after the answer: %v", err)
	}
}

// TestStatusTimeouts checks the result of Status after each answer of the plugins.
func TestStatusTimeouts(t *testing.T) {
	n, _ := newSlowNetwork(t, "0", "600")
	if _, err := n.Reload(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	l := n.loaded.Load()
	late := n.askStatus(t.Context(), l.list, 50*time.Millisecond)
	if !errors.Is(late, context.DeadlineExceeded) || !errdefs.IsUnavailable(late) {
		t.Fatalf("got %v, want DeadlineExceeded and ErrUnavailable", late)
	}
	c := checker{n: n}
	for i, step := range []struct {
		err   error
		ready bool
	}{
		{late, false},                   // no answer yet
		{nil, true},                     // the plugins have answered
		{late, true},                    // one timeout has no effect
		{nil, true},                     //
		{late, true},                    //
		{late, false},                   // two timeouts in a row have
		{errors.New("no agent"), false}, //
		{nil, true},                     //
		{errors.New("no agent"), false}, // an error has an effect at once
	} {
		c.query.start(t.Context(), func(context.Context) statusAnswer { return statusAnswer{conf: l, err: step.err} })
		c.handleAnswer(t.Context(), <-c.query.answers)
		if ready := n.Status() == nil; ready != step.ready {
			t.Errorf("step %d: ready %v, want %v (%v)", i, ready, step.ready, n.Status())
		}
	}
}

func TestDoubled(t *testing.T) {
	for missed, want := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, maxTimeout, maxTimeout} {
		if got := doubled(time.Minute, missed); got != want {
			t.Errorf("after %d timeouts: %s, want %s", missed, got, want)
		}
	}
}

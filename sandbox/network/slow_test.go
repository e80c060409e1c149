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

// slowMachine puts an nft in front of the PATH that sleeps, and returns a Network
// on a bridge with a plugin whose STATUS sleeps, too. Both read their times from
// files, so that a test can change them.
func slowMachine(t *testing.T, nftSeconds, statusSeconds string) (n *Network, set func(file, seconds string)) {
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

// TestReloadWithoutAnAnswerOfNft checks that a missed deadline decides nothing: the
// network is not ready, and the next try comes to the result of a fast machine.
func TestReloadWithoutAnAnswerOfNft(t *testing.T) {
	n, set := slowMachine(t, "600", "0")
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
		t.Fatalf("the daemon leaves work to the plugins: %+v", l)
	}
}

// TestReloadKeepsTheNetworkThatItHas has nft miss its deadline for a new
// configuration only.
func TestReloadKeepsTheNetworkThatItHas(t *testing.T) {
	n, set := slowMachine(t, "0", "0")
	if _, err := n.Reload(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(n.cfg.ConfDirs[0], "10-slow.conflist")
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

// TestTheNetworkIsNotReadyBeforeTheAnswer checks that Status waits for the plugins,
// and that Await ends with their answer.
func TestTheNetworkIsNotReadyBeforeTheAnswer(t *testing.T) {
	n, _ := slowMachine(t, "0", "2")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for n.loaded.Load().list == nil {
		time.Sleep(time.Millisecond)
	}
	if err := n.Status(); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "have not answered STATUS") {
		t.Errorf("before the answer: %v", err)
	}
	if err := n.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.Status(); err != nil {
		t.Errorf("after the answer: %v", err)
	}
}

// TestLateAnswersToStatus goes through the states by the result of each inquiry.
func TestLateAnswersToStatus(t *testing.T) {
	n, _ := slowMachine(t, "0", "600")
	if _, err := n.Reload(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	l := n.loaded.Load()
	late := n.askStatus(t.Context(), l.list, 50*time.Millisecond)
	if !errors.Is(late, context.DeadlineExceeded) || !errdefs.IsUnavailable(late) {
		t.Fatalf("a late answer: %v", late)
	}
	r := rounds{n: n}
	for i, step := range []struct {
		err   error
		ready bool
	}{
		{late, false},                   // nothing is known yet
		{nil, true},                     // the plugins have answered
		{late, true},                    // one late answer means nothing
		{nil, true},                     //
		{late, true},                    //
		{late, false},                   // two in a row do
		{errors.New("no agent"), false}, //
		{nil, true},                     //
		{errors.New("no agent"), false}, // a refusal counts at once
	} {
		r.inquiry.start(t.Context(), func(context.Context) answer { return answer{l, step.err} })
		r.answered(t.Context(), <-r.inquiry.answers)
		if ready := n.Status() == nil; ready != step.ready {
			t.Errorf("step %d: ready %v, %v", i, ready, n.Status())
		}
	}
}

func TestLonger(t *testing.T) {
	for missed, want := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, longest, longest} {
		if got := longer(time.Minute, missed); got != want {
			t.Errorf("after %d: %s, want %s", missed, got, want)
		}
	}
}

package system

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// delayProgram replaces a program with a script that sleeps before it runs the program.
func delayProgram(t *testing.T, dir, program string, seconds int) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\nsleep %d\nexec %s \"$@\"\n", seconds, path)
	if err := os.WriteFile(filepath.Join(dir, filepath.Base(program)), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestStartOnSlowMachine runs the daemon with a slow nft and slow plugins. The
// daemon must serve before its checks have finished, become ready afterwards, and then
// behave like on a fast machine.
func TestStartOnSlowMachine(t *testing.T) {
	n := makeNode("slow")
	slow := filepath.Join(n.Dir, "slow")
	if err := os.MkdirAll(slow, 0o755); err != nil {
		t.Fatal(err)
	}
	n.PluginDirs = []string{slow}
	n.Network = n.Bridge("csslow", "10.121.0.0/16")
	n.start(t)
	want, err := n.RuntimeService.Status(t.Context(), &cri.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}

	pluginRules := func(rules string) int { return strings.Count(rules, "CNI-") } // including rules of plugins in earlier tests
	before := pluginRules(command(t, "", "nft", "list", "ruleset"))
	n.Kill()
	if err := n.RemoveNetworks(); err != nil { // so that the tables are created again
		t.Fatal(err)
	}
	// Without its result, the trial of user namespaces runs again. A failed trial has no file.
	if err := os.Remove(filepath.Join(n.Dir, "run", "userns-runc.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	delayProgram(t, slow, "nft", 6)
	for _, plugin := range []string{"bridge", "portmap", "host-local"} {
		delayProgram(t, slow, filepath.Join(n.Bin, "cni", plugin), 3)
	}
	t.Setenv("PATH", slow+":"+os.Getenv("PATH"))
	n.restart(t)

	if c := n.networkCondition(t); c.GetStatus() || !strings.Contains(c.GetMessage(), " yet") {
		t.Errorf("NetworkReady while nft sleeps: got %v, want false and a message that the checks have not finished", c)
	}
	web := n.RunPod(t, webOn("web", 18090)) // the request waits for the checks
	n.networkReady(t, true)
	n.waitChecked(t)
	got, err := n.RuntimeService.Status(t.Context(), &cri.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if w, g := fmt.Sprint(want.GetRuntimeHandlers()), fmt.Sprint(got.GetRuntimeHandlers()); w != g {
		t.Errorf("handlers: got %s, want %s", g, w)
	}
	rules := command(t, "", "nft", "list", "ruleset")
	for _, table := range []string{"criserver_hostports_csslow", "criserver_masquerade_csslow"} {
		if !strings.Contains(rules, "table inet "+table) {
			t.Errorf("rules: got\n%s\nwant the table %s", rules, table)
		}
	}
	if pluginRules(rules) > before {
		t.Errorf("rules of plugins: got %d in\n%s\nwant at most %d", pluginRules(rules), rules, before)
	}
	n.RemovePod(t, web.ID)
}

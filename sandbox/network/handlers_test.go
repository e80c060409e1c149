package network

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// handlersNetwork is a Network with the runtime handlers "vm" and "none", whose plugins are scripts.
type handlersNetwork struct {
	*Network
	t       *testing.T
	dir     string
	checker checker
}

// newHandlersNetwork returns a Network whose plugin "broken" is never ready.
func newHandlersNetwork(t *testing.T) *handlersNetwork {
	t.Helper()
	n := &handlersNetwork{t: t, dir: t.TempDir()}
	for name, result := range map[string]string{"plain": "exit 0", "broken": `echo '{"cniVersion":"1.1.0","code":50,"msg":"no uplink"}'; exit 1`} {
		script := `#!/bin/sh
[ "$CNI_COMMAND" = VERSION ] && { echo '{"cniVersion":"1.1.0","supportedVersions":["1.1.0"]}'; exit; }
[ "$CNI_COMMAND" = STATUS ] || exit 0
` + result + "\n"
		if err := os.WriteFile(filepath.Join(n.dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	n.Network = New(Config{
		ConfDirs: []string{filepath.Join(n.dir, "net.d")}, BinDirs: []string{n.dir}, CacheDir: filepath.Join(n.dir, "cache"),
		HandlerConfDirs: map[string][]string{"vm": {filepath.Join(n.dir, "vm.d")}, "none": {filepath.Join(n.dir, "none.d")}},
	})
	n.checker.n = n.Network
	return n
}

// write writes a configuration with one plugin, or removes the configuration if the plugin is "".
func (n *handlersNetwork) write(dir, network, plugin string) {
	n.t.Helper()
	file := filepath.Join(n.dir, dir, "10.conflist")
	if plugin == "" {
		if err := os.Remove(file); err != nil {
			n.t.Fatal(err)
		}
		return
	}
	err := os.MkdirAll(filepath.Dir(file), 0o755)
	if err == nil {
		err = os.WriteFile(file, []byte(`{"cniVersion":"1.1.0","name":"`+network+`","plugins":[{"type":"`+plugin+`"}]}`), 0o644)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// reload loads the configuration and asks the plugins for their status.
func (n *handlersNetwork) reload() (changed bool) {
	n.t.Helper()
	changed, err := n.Reload(n.t.Context(), time.Minute)
	if err != nil {
		n.t.Fatal(err)
	}
	n.checker.startQuery(n.t.Context())
	if n.checker.query.running() {
		n.checker.handleAnswer(n.t.Context(), <-n.checker.query.answers)
	}
	return changed
}

// status compares the network and the error of each handler; "" for no error.
func (n *handlersNetwork) status(handler, network, want string) {
	n.t.Helper()
	plan, err := n.Plan(Pod{}, handler)
	switch {
	case want == "" && err != nil:
		n.t.Errorf("handler %q: %v", handler, err)
	case want == "":
		if l, err := parseList(plan); err != nil || l.conf.Name != network {
			n.t.Errorf("handler %q has the plan %s (%v), want network %s", handler, plan, err, network)
		}
	case !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), want):
		n.t.Errorf("handler %q: got %v, want Unavailable with %q", handler, err, want)
	}
}

func TestHandlerNetworks(t *testing.T) {
	n := newHandlersNetwork(t)
	n.status("vm", "", "not loaded yet")
	n.write("net.d", "default", "plain")
	n.write("vm.d", "vms", "plain")
	n.reload()
	n.status("", "default", "")
	n.status("runc", "default", "")
	n.status("vm", "vms", "")
	n.status("none", "", "none.d")
	if !n.checker.ready || !n.checker.handlerReady {
		t.Errorf("ready %t, handler ready %t, want true for both", n.checker.ready, n.checker.handlerReady)
	}
	if got := n.HandlerNetworks(); got["vm"] != (HandlerNetwork{Network: "vms"}) || !strings.Contains(got["none"].Error, "none.d") || len(got) != 2 {
		t.Errorf("got %+v", got)
	}
	if len(n.loaded.Load().all()) != 2 || !n.configured("vms") {
		t.Error("the network of the handler is not among all networks")
	}
	if n.reload() {
		t.Error("the configuration has changed although no file has changed")
	}

	// One handler does not affect the others.
	n.write("vm.d", "vms", "broken")
	if !n.reload() {
		t.Error("another plugin of a handler's network is no change")
	}
	n.status("vm", "", "no uplink")
	n.status("", "default", "")
	n.write("vm.d", "default", "broken")
	n.reload()
	n.status("vm", "", "the same name")
	n.status("", "default", "")
	n.write("vm.d", "vms", "missing")
	n.reload()
	n.status("vm", "", `"missing"`)

	// The network of a handler does not depend on the default network.
	n.write("vm.d", "vms", "plain")
	n.write("net.d", "default", "broken")
	n.reload()
	n.status("", "", "no uplink")
	n.status("vm", "vms", "")
	n.write("net.d", "", "")
	n.reload()
	n.status("", "", "no CNI network")
	n.status("vm", "vms", "")
	if n.checker.ready || !n.checker.handlerReady {
		t.Errorf("ready %t, handler ready %t, want only the latter", n.checker.ready, n.checker.handlerReady)
	}
	select {
	case <-n.loaded.Load().checked:
	default:
		t.Error("pods still wait for the checks of the network")
	}
}

// TestHandlersShareNetwork checks that a network that several handlers use is prepared and asked once.
func TestHandlersShareNetwork(t *testing.T) {
	n := newHandlersNetwork(t)
	for _, dir := range []string{"net.d", "vm.d", "none.d"} {
		n.write(dir, "shared", "plain")
	}
	n.reload()
	for _, handler := range []string{"", "vm", "none"} {
		n.status(handler, "shared", "")
	}
	if all := n.loaded.Load().all(); len(all) != 1 {
		t.Errorf("got %d networks, want 1", len(all))
	}
	n.write("vm.d", "own", "plain")
	if !n.reload() {
		t.Error("another network of a handler is no change")
	}
	n.status("vm", "own", "")
	n.status("none", "shared", "")
}

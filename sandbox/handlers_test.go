package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const otherConf = `{"cniVersion":"1.1.0","name":"other","plugins":[{"type":"other"}]}`

// handlersBed returns a testbed with the fake CNI plugin, a second fake plugin with the name other, and the directory
// of the CNI configuration for the runtime handler "vm".
func handlersBed(t *testing.T) (b *bed, plugin, other fakePlugin, confDir string) {
	t.Helper()
	b, plugin = fakeBed(t)
	other = fakePlugin{t, t.TempDir()}
	script, err := os.ReadFile("testdata/plugin.sh")
	if err == nil {
		err = os.WriteFile(filepath.Join(other.dir, "other"), script, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if pods, _ := os.ReadDir(filepath.Join(other.dir, "attached")); len(pods) > 0 {
			t.Errorf("%d pods are still attached to the network of the handler", len(pods))
		}
	})
	confDir = filepath.Join(t.TempDir(), "vm.d")
	b.cfg.CNI.BinDirs = append(b.cfg.CNI.BinDirs, other.dir)
	b.cfg.CNI.HandlerConfDirs = map[string][]string{"vm": {confDir}}
	b.cfg.KnownHandler = func(name string) bool { return name == "" || name == "vm" || name == "runc" }
	return b, plugin, other, confDir
}

func (b *bed) writeFile(dir, name, content string) {
	b.t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func mustRunWith(t *testing.T, m *Manager, handler string, c *cri.PodSandboxConfig) *Pod {
	t.Helper()
	id, err := m.RunPod(t.Context(), c, handler)
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestNetworkOfHandler(t *testing.T) {
	b, plugin, other, dir := handlersBed(t)
	b.writeFile(dir, "10-other.conflist", otherConf)
	b.writeFile(dir, "20-unused.conflist", fakeConf)
	m := b.start()
	vm, runc, none := mustRunWith(t, m, "vm", podConfig("vm")), mustRunWith(t, m, "runc", podConfig("runc")), mustRun(t, m, podConfig("none"))
	if _, err := os.Stat(filepath.Join(other.dir, "attached", vm.ID+"@eth0")); err != nil || other.calls("ADD") != 1 {
		t.Errorf("the plugin of the handler's network got %d ADD (%v), want 1 for the pod %s", other.calls("ADD"), err, vm.ID)
	}
	if plugin.calls("ADD") != 2 {
		t.Errorf("the plugin of the default network attached %d pods, want 2", plugin.calls("ADD"))
	}
	if got := m.HandlerNetworks()["vm"]; got.Network != "other" || got.Error != "" {
		t.Errorf("network of the handler: %+v, want other", got)
	}
	eventually(t, "GC of both networks", func() bool { return plugin.calls("GC") > 0 && other.calls("GC") > 0 })

	// The networks of handlers are checked after a restart, and removed with their pods if the handler is no longer
	// configured.
	b.halt()
	b.cfg.CNI.HandlerConfDirs = nil
	m = b.start()
	eventually(t, "CHECK of the pod", func() bool { return other.calls("CHECK") > 0 })
	if p, err := m.Get(vm.ID); err != nil || !p.Ready {
		t.Errorf("pod of the handler after a restart: %+v, %v", p, err)
	}
	mustRemove(t, m, vm.ID, runc.ID, none.ID)
	if other.calls("DEL") != 1 {
		t.Errorf("the plugin of the handler's network got %d DEL, want 1", other.calls("DEL"))
	}
}

func TestNetworkOfHandlerIsNotReady(t *testing.T) {
	b, plugin, other, dir := handlersBed(t)
	other.fail("STATUS", 3)
	m := b.start()
	refused := func(want string) {
		t.Helper()
		eventually(t, "error with "+want, func() bool {
			id, err := m.RunPod(t.Context(), podConfig("vm"), "vm")
			if err == nil {
				mustRemove(t, m, id)
			}
			return errdefs.IsUnavailable(err) && strings.Contains(err.Error(), want) && strings.Contains(m.HandlerNetworks()["vm"].Error, want)
		})
		mustRemove(t, m, mustRun(t, m, podConfig("default")).ID) // does not depend on the handler
	}
	refused(dir)
	b.writeFile(dir, "10-other.conflist", `{"cniVersion":"1.1.0","name":"fake","plugins":[{"type":"other"}]}`)
	refused("same name")
	b.writeFile(dir, "10-other.conflist", otherConf)
	refused("failure on command")
	eventually(t, "next STATUS of the plugin", func() bool { return m.HandlerNetworks()["vm"].Error == "" })
	mustRemove(t, m, mustRunWith(t, m, "vm", podConfig("vm")).ID)

	// The network of the handler does not depend on the default network.
	plugin.fail("STATUS", 1000)
	if err := os.Remove(filepath.Join(b.cfg.CNI.ConfDirs[0], "10-test.conflist")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "loss of the default network", func() bool { return m.NetworkStatus() != nil })
	eventually(t, "network of the handler", func() bool { return m.HandlerNetworks()["vm"].Error == "" })
	mustRemove(t, m, mustRunWith(t, m, "vm", podConfig("vm")).ID)
}

func TestHandlersWithSameNetwork(t *testing.T) {
	b, plugin, _, dir := handlersBed(t)
	b.cfg.CNI.HandlerConfDirs["runc"] = []string{dir, b.cfg.CNI.ConfDirs[0]}
	b.writeFile(dir, "10-test.conflist", fakeConf)
	m := b.start()
	p := []*Pod{mustRunWith(t, m, "vm", podConfig("vm")), mustRunWith(t, m, "runc", podConfig("runc")), mustRun(t, m, podConfig("none"))}
	if plugin.calls("ADD") != 3 {
		t.Errorf("the plugin attached %d pods, want 3", plugin.calls("ADD"))
	}
	eventually(t, "GC", func() bool { return plugin.calls("GC") > 0 })
	if n := plugin.calls("GC"); n != 1 {
		t.Errorf("got %d GC for one network, want 1", n)
	}
	mustRemove(t, m, p[0].ID, p[1].ID, p[2].ID)
}

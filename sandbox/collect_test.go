package sandbox

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestGCKeepsAttachments checks the valid attachments that the daemon passes to CNI GC.
func TestGCKeepsAttachments(t *testing.T) {
	b, plugin := manyBed(t)
	m := b.start()
	p, stopped := mustRun(t, m, asking("a", "one")), mustRun(t, m, podConfig("b"))
	if err := m.Stop(t.Context(), stopped.ID); err != nil {
		t.Fatal(err)
	}
	b.halt()
	// A pod whose record cannot be read must keep its network.
	file := filepath.Join(b.cfg.RunDir, "pods", p.ID, recordFile)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, content := range [][]byte{good, []byte("{")} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		before := plugin.calls("GC")
		b.start()
		eventually(t, "CNI GC of both networks of version 1.1.0", func() bool { return plugin.calls("GC") == before+2 })
		b.halt()
		var kept []struct{ ContainerID, IfName string }
		if err := json.Unmarshal([]byte(plugin.stdin("GC", "cni.dev/valid-attachments")), &kept); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"eth0", "net1"} {
			// The fake plugin creates no interfaces, so the daemon finds only eth0 of a pod whose record it cannot read.
			if string(content) == "{" && name != "eth0" {
				continue
			}
			if !slices.Contains(kept, struct{ ContainerID, IfName string }{p.ID, name}) {
				t.Errorf("%s of the pod is not among the valid attachments %v", name, kept)
			}
		}
		if strings.Contains(fmt.Sprint(kept), stopped.ID) {
			t.Errorf("a stopped pod is among the valid attachments %v", kept)
		}
	}
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	m = b.start()
	mustRemove(t, m, p.ID, stopped.ID)
}

// TestNoADDDuringGC checks that a new pod waits for the end of CNI GC. The plugin does not know the
// pod, and would delete its attachment.
func TestNoADDDuringGC(t *testing.T) {
	b, plugin := fakeBed(t)
	release := plugin.hold("GC")
	m := b.start()
	eventually(t, "call of GC", func() bool { return plugin.calls("GC") == 1 })
	created := make(chan error, 1)
	go func() { _, err := m.RunPod(t.Context(), podConfig("a"), ""); created <- err }()
	eventually(t, "wait before ADD", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, s := range m.building {
			if strings.Contains(s.String(), "CNI ADD") {
				return true
			}
		}
		return false
	})
	if plugin.calls("ADD") != 0 {
		t.Error("the plugin got ADD during GC")
	}
	release()
	if err := <-created; err != nil {
		t.Fatal(err)
	}
	mustRemove(t, m, m.List()[0].ID)
}

func TestNetworkStatus(t *testing.T) {
	b, plugin := fakeBed(t)
	m := b.start()
	awaitNetwork(t, m)
	if err := m.NetworkStatus(); err != nil {
		t.Fatal(err)
	}
	b.writeConf("05-other.conflist", `{"cniVersion":"1.0.0","name":"other","plugins":[{"type":"nowhere"}]}`)
	eventually(t, "error that names the missing plugin", func() bool {
		err := m.NetworkStatus()
		return err != nil && strings.Contains(err.Error(), `"nowhere"`) && strings.Contains(err.Error(), plugin.dir)
	})
	b.writeConf("05-other.conflist", `{`)
	eventually(t, "use of the next valid file", func() bool { return m.NetworkStatus() == nil })
	if err := os.Remove(filepath.Join(b.cfg.CNI.ConfDirs[0], "10-test.conflist")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "error that names the invalid file", func() bool {
		err := m.NetworkStatus()
		return err != nil && strings.Contains(err.Error(), "05-other.conflist")
	})
	plugin.fail("STATUS", 1)
	b.writeConf("10-test.conflist", fakeConf)
	eventually(t, "error of the plugin", func() bool {
		err := m.NetworkStatus()
		return err != nil && strings.Contains(err.Error(), "failure on command")
	})
	eventually(t, "next STATUS of the plugin", func() bool { return m.NetworkStatus() == nil })
}

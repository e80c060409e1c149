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

// TestCollectionSparesWhatIsThere looks at what plugins are told to keep.
func TestCollectionSparesWhatIsThere(t *testing.T) {
	b, plugin := manyBed(t)
	m := b.start()
	p, gone := mustRun(t, m, asking("a", "one")), mustRun(t, m, podConfig("b"))
	if err := m.Stop(t.Context(), gone.ID); err != nil {
		t.Fatal(err)
	}
	b.halt()
	// A record that cannot be read costs its pod the view, not the network.
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
		eventually(t, "both networks of version 1.1.0 are collected", func() bool { return plugin.calls("GC") == before+2 })
		b.halt()
		var kept []struct{ ContainerID, IfName string }
		if err := json.Unmarshal([]byte(plugin.stdin("GC", "cni.dev/valid-attachments")), &kept); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"eth0", "net1"} {
			// The fake makes no interfaces, so that only eth0 can be known of a pod
			// without a record.
			if string(content) == "{" && name != "eth0" {
				continue
			}
			if !slices.Contains(kept, struct{ ContainerID, IfName string }{p.ID, name}) {
				t.Errorf("%s of the pod is not kept: %v", name, kept)
			}
		}
		if strings.Contains(fmt.Sprint(kept), gone.ID) {
			t.Errorf("a stopped pod is kept: %v", kept)
		}
	}
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	m = b.start()
	mustRemove(t, m, p.ID, gone.ID)
}

// TestNoPodIsAttachedDuringACollection has a new pod wait for plugins that were
// not told of it.
func TestNoPodIsAttachedDuringACollection(t *testing.T) {
	b, plugin := fakeBed(t)
	release := plugin.hold("GC")
	m := b.start()
	eventually(t, "the collection runs", func() bool { return plugin.calls("GC") == 1 })
	made := make(chan error, 1)
	go func() { _, err := m.RunPod(t.Context(), podConfig("a"), ""); made <- err }()
	eventually(t, "the pod waits", func() bool {
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
		t.Error("a pod was attached while the plugin collects")
	}
	release()
	if err := <-made; err != nil {
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
	eventually(t, "the missing plugin is named", func() bool {
		err := m.NetworkStatus()
		return err != nil && strings.Contains(err.Error(), `"nowhere"`) && strings.Contains(err.Error(), plugin.dir)
	})
	b.writeConf("05-other.conflist", `{`)
	eventually(t, "the next valid file is used", func() bool { return m.NetworkStatus() == nil })
	if err := os.Remove(filepath.Join(b.cfg.CNI.ConfDirs[0], "10-test.conflist")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the broken file is named", func() bool {
		err := m.NetworkStatus()
		return err != nil && strings.Contains(err.Error(), "05-other.conflist")
	})
	plugin.fail("STATUS", 1)
	b.writeConf("10-test.conflist", fakeConf)
	eventually(t, "the plugin's own word", func() bool {
		err := m.NetworkStatus()
		return err != nil && strings.Contains(err.Error(), "told to fail")
	})
	eventually(t, "the plugin is asked again", func() bool { return m.NetworkStatus() == nil })
}

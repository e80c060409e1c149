package sandbox

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/sandbox/namespace"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestUnreadableRecord checks that a pod whose record cannot be read is not ready, keeps its
// resources until a client stops it, and can be removed with all its resources.
func TestUnreadableRecord(t *testing.T) {
	later := func(b []byte) []byte {
		var fields map[string]any
		if err := json.Unmarshal(b, &fields); err != nil {
			t.Fatal(err)
		}
		fields["version"] = 99
		return []byte(mustJSON(t, fields))
	}
	for name, tc := range map[string]struct {
		corrupt  func([]byte) []byte
		wantName string
	}{
		"empty":           {func([]byte) []byte { return nil }, ""},
		"half":            {func(b []byte) []byte { return b[:len(b)/2] }, ""},
		"a later version": {later, "a"},
	} {
		t.Run(name, func(t *testing.T) {
			b, plugin := fakeBed(t)
			m := b.start()
			p, other := mustRun(t, m, podConfig("a")), mustRun(t, m, podConfig("b"))
			b.halt()
			file := m.dirs.file(p.ID)
			rec, err := os.ReadFile(file)
			if err == nil {
				err = os.WriteFile(file, tc.corrupt(rec), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}

			m = b.start()
			got, err := m.Get(p.ID)
			if err != nil || got.Ready || !got.Unreadable || !strings.Contains(got.NotReadyReason, "record") || len(m.List()) != 2 {
				t.Fatalf("got %+v, %v", got, err)
			}
			wantName := tc.wantName
			if wantName == "" {
				wantName = p.ID
			}
			if got.Config.Metadata.Name != wantName {
				t.Errorf("got name %q, want %q", got.Config.Metadata.Name, wantName)
			}
			if plugin.calls("DEL") != 0 || !namespace.Pinned(p.Namespaces.Net) {
				t.Error("the pod was torn down")
			}
			if ready, err := m.Get(other.ID); err != nil || !ready.Ready {
				t.Errorf("other pod: got %+v, %v", ready, err)
			}
			// The kubelet creates a new pod sandbox before it removes the old one.
			next := podConfig("a")
			next.Metadata.Attempt = 1
			mustRemove(t, m, p.ID, mustRun(t, m, next).ID, other.ID)
			if n := plugin.calls("DEL"); n != 3 {
				t.Errorf("got %d DEL, want 3", n)
			}
		})
	}
}

// TestUnreadableRecordWithPause checks that the daemon finds the pause of a pod whose record cannot be read.
func TestUnreadableRecordWithPause(t *testing.T) {
	b, _ := fakeBed(t)
	b.cfg.PausePath = buildBinary(t, "../cmd/conmon")
	m := b.start()
	c := podConfig("a")
	c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
	p := mustRun(t, m, c)
	pause, err := proc.Identify(p.PausePID)
	if err != nil {
		t.Fatal(err)
	}
	b.halt()
	if err := os.WriteFile(m.dirs.file(p.ID), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m = b.start()
	if got, err := m.Get(p.ID); err != nil || got.Ready || !pause.Alive() {
		t.Errorf("got %+v, %v; the pause runs: %t", got, err, pause.Alive())
	}
	mustRemove(t, m, p.ID)
	if pause.Alive() {
		t.Error("the pause still runs")
	}
}

package sandbox

import (
	"context"
	"strings"
	"testing"

	"github.com/criserver/criserver/sandbox/namespace"
)

func TestRollbackAfterFailedADD(t *testing.T) {
	b, plugin := fakeBed(t)
	m := b.start()
	plugin.fail("ADD", 1)
	_, err := m.RunPod(t.Context(), podConfig("a"), "")
	if err == nil || !strings.Contains(err.Error(), "failure on command") {
		t.Fatalf("error %v does not have the message of the plugin", err)
	}
	if plugin.calls("DEL") != 1 || len(m.List()) != 0 {
		t.Errorf("got %d DEL and pods %v, want one DEL and no pods", plugin.calls("DEL"), m.List())
	}
	b.checkClean()
	mustRemove(t, m, mustRun(t, m, podConfig("a")).ID)
}

func TestFailedRollbackIsVisible(t *testing.T) {
	b, plugin := fakeBed(t)
	m := b.start()
	plugin.fail("ADD", 1)
	plugin.fail("DEL", 2)
	if _, err := m.RunPod(t.Context(), podConfig("a"), ""); err == nil {
		t.Fatal("got no error")
	}
	pods := m.List()
	if len(pods) != 1 || pods[0].Ready || !strings.Contains(pods[0].NotReadyReason, "failure on command") {
		t.Fatalf("got pods %+v, want one that is not ready", pods)
	}
	eventually(t, "teardown in the background", func() bool { return plugin.calls("DEL") == 3 && !namespace.Pinned(pods[0].Namespaces.Net) })
	mustRemove(t, m, pods[0].ID)
}

func TestFailedDELIsRetried(t *testing.T) {
	b, plugin := fakeBed(t)
	m := b.start()
	p := mustRun(t, m, podConfig("a"))
	plugin.fail("DEL", 3)
	if err := m.Stop(t.Context(), p.ID); err == nil {
		t.Fatal("got no error")
	}
	if got, _ := m.Get(p.ID); got.Ready || got.NotReadyReason == "" {
		t.Errorf("after a failed stop: got %+v", got)
	}
	if err := m.Stop(t.Context(), p.ID); err == nil { // a client may retry at once
		t.Fatal("got no error")
	}
	b.halt() // the next daemon continues the teardown
	m = b.start()
	eventually(t, "teardown by the next daemon", func() bool { return plugin.calls("DEL") == 4 })
	mustRemove(t, m, p.ID)
	if n := plugin.calls("DEL"); n != 4 {
		t.Errorf("got %d DEL, want 4", n)
	}
}

// TestCrashDuringCreation ends the creation of a pod after each of its steps, as the death of the
// daemon does, and starts another daemon.
func TestCrashDuringCreation(t *testing.T) {
	steps := []struct {
		name string
		do   func(*build) error
	}{
		{"intent", func(*build) error { return nil }},
		{"files", func(b *build) error { return b.files(t.Context()) }},
		{"network", func(b *build) error { return b.isolate(context.Background()) }},
		{"hosts", func(b *build) error { return b.hosts() }},
	}
	for i, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			b, plugin := fakeBed(t)
			m := b.halted()
			bd := &build{m: m, settings: m.settings.Load(), spec: mustParse(t, m, podConfig("a")), rec: &record{ID: strings.Repeat("ab", 32)}}
			if err := bd.begin(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, s := range steps[:i+1] {
				if err := s.do(bd); err != nil {
					t.Fatal(err)
				}
			}
			m = b.start()
			if len(m.List()) != 0 {
				t.Error("the leftovers are visible")
			}
			// The leftovers must be removed before a pod with the same name is created.
			p := mustRun(t, m, podConfig("a"))
			if plugin.calls("DEL") != 1 {
				t.Errorf("got %d DEL, want 1", plugin.calls("DEL"))
			}
			mustRemove(t, m, p.ID)
		})
	}
}

package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/criserver/criserver/sandbox/namespace"
)

func TestRestore(t *testing.T) {
	b, plugin := fakeBed(t)
	m := b.start()
	good, lost, old := mustRun(t, m, podConfig("good")), mustRun(t, m, podConfig("lost")), mustRun(t, m, podConfig("old"))
	stopped := mustRun(t, m, podConfig("stopped"))
	if err := m.Stop(t.Context(), stopped.ID); err != nil {
		t.Fatal(err)
	}
	b.halt()
	stray := filepath.Join(b.cfg.RunDir, "ns", strings.Repeat("1e", 32))
	if err := namespace.Make(namespace.Spec{Dir: stray, Net: true}); err != nil {
		t.Fatal(err)
	}
	if err := namespace.UnpinAll(filepath.Dir(lost.Namespaces.Net)); err != nil {
		t.Fatal(err)
	}
	rec, _, err := m.dirs.read(old.ID)
	if err != nil {
		t.Fatal(err)
	}
	rec.BootID = "another"
	if err := m.dirs.write(rec); err != nil {
		t.Fatal(err)
	}

	m = b.start()
	if p, err := m.Get(good.ID); err != nil || !p.Ready || mustJSON(t, p.IPs) != mustJSON(t, good.IPs) || p.Config.Hostname != "good" {
		t.Errorf("good: %+v, %v", p, err)
	}
	for _, id := range []string{lost.ID, stopped.ID} {
		if p, err := m.Get(id); err != nil || p.Ready {
			t.Errorf("%s: %+v, %v", id, p, err)
		}
	}
	if namespace.Pinned(filepath.Join(stray, namespace.Net)) {
		t.Error("namespaces of nobody are left")
	}
	eventually(t, "the pod of before the boot is swept", func() bool {
		_, err := os.Stat(filepath.Join(b.cfg.RunDir, "pods", old.ID))
		return os.IsNotExist(err)
	})
	mustRemove(t, m, good.ID, lost.ID, stopped.ID)
	if n := plugin.calls("DEL"); n != 4 {
		t.Errorf("%d DEL", n)
	}
}

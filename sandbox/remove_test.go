package sandbox

import (
	"errors"
	"fmt"
	"os"
	"testing"
)

// A daemon that dies between two steps of a removal leaves a cgroup behind if
// the record goes before the cgroup.
func TestRecordGoesAfterTheCgroup(t *testing.T) {
	for name, parent := range map[string]string{"of the pod alone": "", "that the request names": "/kubelet/pod1"} {
		t.Run(name, func(t *testing.T) {
			b, _ := fakeBed(t)
			m := b.start()
			c := podConfig("a")
			c.Linux.CgroupParent = parent
			p := mustRun(t, m, c)
			var steps []string
			b.cgroups.drop = func(path string) error {
				_, err := os.Stat(m.dirs.file(p.ID))
				steps = append(steps, fmt.Sprintf("%s, record: %t", path, err == nil))
				return nil
			}
			mustRemove(t, m, p.ID)
			if len(steps) == 0 {
				t.Error("no cgroup was removed")
			}
			for _, s := range steps {
				if want := p.CgroupParent + ", record: true"; s != want {
					t.Errorf("removed cgroup %s, want %s", s, want)
				}
			}
		})
	}
}

// A cgroup that cannot be removed keeps the record, so that the removal can be
// repeated, and the hold on the cgroup is given back once.
func TestRemovalIsRepeated(t *testing.T) {
	b, _ := fakeBed(t)
	m := b.start()
	c := podConfig("a")
	c.Linux.CgroupParent = ""
	p := mustRun(t, m, c)
	busy := errors.New("busy")
	b.cgroups.drop = func(string) error { return busy }
	if err := m.Stop(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	if err := m.Remove(t.Context(), p.ID); !errors.Is(err, busy) {
		t.Errorf("remove: %v", err)
	}
	b.cgroups.mu.Lock()
	b.cgroups.drop = nil
	b.cgroups.held[p.CgroupParent]++ // another user of the cgroup
	b.cgroups.mu.Unlock()
	for range 2 {
		_ = m.Remove(t.Context(), p.ID)
	}
	b.cgroups.mu.Lock()
	if n := b.cgroups.held[p.CgroupParent]; n != 1 {
		t.Errorf("%d holds are left, want that of the other user", n)
	}
	delete(b.cgroups.held, p.CgroupParent)
	b.cgroups.mu.Unlock()
}

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"testing"
)

// TestRecordIsRemovedAfterCgroup checks the order of a removal. If the record were removed first, a
// daemon that dies between the two steps would leave a cgroup that no other daemon removes.
func TestRecordIsRemovedAfterCgroup(t *testing.T) {
	for name, parent := range map[string]string{"chosen by the daemon": "", "requested": "/kubelet/pod1"} {
		t.Run(name, func(t *testing.T) {
			b, _ := fakeBed(t)
			m := b.start()
			c := podConfig("a")
			c.Linux.CgroupParent = parent
			p := mustRun(t, m, c)
			var removed []string
			b.cgroups.drop = func(path string) error {
				_, err := os.Stat(m.dirs.file(p.ID))
				removed = append(removed, fmt.Sprintf("%s, record: %t", path, err == nil))
				return nil
			}
			mustRemove(t, m, p.ID)
			if len(removed) == 0 {
				t.Error("no cgroup was removed")
			}
			for _, s := range removed {
				if want := p.CgroupParent + ", record: true"; s != want {
					t.Errorf("removed cgroup %s; want %s", s, want)
				}
			}
		})
	}
}

// TestRemoveAfterFailure removes a pod again after the removal of its cgroup has failed. The hold on the cgroup must be
// released only once.
func TestRemoveAfterFailure(t *testing.T) {
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
		t.Errorf("remove: got error %v", err)
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
		t.Errorf("got %d holds, want the hold of the other user", n)
	}
	delete(b.cgroups.held, p.CgroupParent)
	b.cgroups.mu.Unlock()
}

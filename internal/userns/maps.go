// Package userns makes user namespaces and knows the rules of their id maps. It
// knows nothing of pods or containers.
package userns

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"syscall"
)

// Mapping maps Size ids from ContainerID on, as the namespace sees them, to
// those of the host from HostID on.
type Mapping struct {
	ContainerID, HostID, Size uint32
}

// Maps are the id maps of a user namespace.
type Maps struct {
	UIDs, GIDs []Mapping
}

// maxExtents is how many lines the kernel takes in one map (user_namespaces(7)).
const maxExtents = 340

// Check says which rule of the kernel one of the two lists breaks: no empty
// range, none past the last id, and none that overlaps with another.
func Check(list []Mapping) error {
	if len(list) > maxExtents {
		return fmt.Errorf("has %d ranges, more than %d", len(list), maxExtents)
	}
	for i, m := range list {
		switch {
		case m.Size == 0:
			return fmt.Errorf("element %d has length 0", i)
		// The highest id stands for "none" (-1) in the kernel's calls.
		case uint64(m.ContainerID)+uint64(m.Size) > math.MaxUint32:
			return fmt.Errorf("element %d: container ids %d and %d more end past %d", i, m.ContainerID, m.Size, uint32(math.MaxUint32-1))
		case uint64(m.HostID)+uint64(m.Size) > math.MaxUint32:
			return fmt.Errorf("element %d: host ids %d and %d more end past %d", i, m.HostID, m.Size, uint32(math.MaxUint32-1))
		}
		for _, o := range list[:i] {
			if overlap(m.ContainerID, m.Size, o.ContainerID, o.Size) || overlap(m.HostID, m.Size, o.HostID, o.Size) {
				return fmt.Errorf("element %d overlaps with an earlier one", i)
			}
		}
	}
	return nil
}

func overlap(a, n, b, m uint32) bool {
	return uint64(a) < uint64(b)+uint64(m) && uint64(b) < uint64(a)+uint64(n)
}

// Equal says whether both map the same ids in the same way.
func (m Maps) Equal(o Maps) bool { return slices.Equal(m.UIDs, o.UIDs) && slices.Equal(m.GIDs, o.GIDs) }

// Host returns the id of the host that an id of the namespace stands for.
func Host(list []Mapping, id uint32) (uint32, bool) {
	for _, m := range list {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return m.HostID + (id - m.ContainerID), true
		}
	}
	return 0, false
}

// Root returns the host's ids of the namespace's root. Error: it has none.
func (m Maps) Root() (uid, gid uint32, err error) {
	uid, uok := Host(m.UIDs, 0)
	gid, gok := Host(m.GIDs, 0)
	if !uok || !gok {
		return 0, 0, errors.New("the id maps have no root")
	}
	return uid, gid, nil
}

// SysProcAttr starts a process in a user namespace with these maps, as its
// root, and in new namespaces of the other kinds that flags name: the kernel
// makes the user namespace first, so that it owns them.
func (m Maps) SysProcAttr(flags uintptr) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:  flags | syscall.CLONE_NEWUSER,
		UidMappings: sysProcMap(m.UIDs), GidMappings: sysProcMap(m.GIDs),
		// setgroups(2) is what lets containers have supplementary groups.
		GidMappingsEnableSetgroups: true,
		Credential:                 &syscall.Credential{},
	}
}

func sysProcMap(list []Mapping) []syscall.SysProcIDMap {
	out := make([]syscall.SysProcIDMap, len(list))
	for i, m := range list {
		out[i] = syscall.SysProcIDMap{ContainerID: int(m.ContainerID), HostID: int(m.HostID), Size: int(m.Size)}
	}
	return out
}

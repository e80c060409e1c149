// Package userns creates user namespaces, checks their id maps, and creates idmapped
// mounts. It does not depend on pods or containers.
package userns

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"syscall"
)

// Mapping maps a range of Size ids. The range starts at ContainerID inside the user
// namespace and at HostID on the host.
type Mapping struct {
	ContainerID, HostID, Size uint32
}

// Maps are the id maps of a user namespace.
type Maps struct {
	UIDs, GIDs []Mapping
}

// maxMappings is the number of lines that the kernel accepts in one id map
// (user_namespaces(7)).
const maxMappings = 340

// Check checks a list of mappings by the rules of the kernel: no range is empty, exceeds
// the last id, or overlaps another range. The message of an error continues the name of
// the field, for example "has 341 ranges, more than 340".
func Check(list []Mapping) error {
	if len(list) > maxMappings {
		return fmt.Errorf("has %d ranges, more than %d", len(list), maxMappings)
	}
	for i, m := range list {
		switch {
		case m.Size == 0:
			return fmt.Errorf("element %d has length 0", i)
		// The highest id is no valid id: -1 means "no id" in system calls.
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

// overlap reports whether the ranges of n ids from a and m ids from b overlap.
func overlap(a, n, b, m uint32) bool {
	return uint64(a) < uint64(b)+uint64(m) && uint64(b) < uint64(a)+uint64(n)
}

// Equal reports whether two maps have the same mappings in the same order.
func (m Maps) Equal(o Maps) bool { return slices.Equal(m.UIDs, o.UIDs) && slices.Equal(m.GIDs, o.GIDs) }

// HostID returns the id on the host for an id inside the user namespace. It returns false
// if the id is not mapped.
func HostID(list []Mapping, id uint32) (uint32, bool) {
	for _, m := range list {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return m.HostID + (id - m.ContainerID), true
		}
	}
	return 0, false
}

// Root returns the ids on the host for root inside the user namespace. It fails if user 0
// or group 0 is not mapped.
func (m Maps) Root() (uid, gid uint32, err error) {
	uid, uok := HostID(m.UIDs, 0)
	gid, gok := HostID(m.GIDs, 0)
	if !uok || !gok {
		return 0, 0, errors.New("id maps do not contain user 0 and group 0")
	}
	return uid, gid, nil
}

// SysProcAttr returns the attributes to start a process as root in a new user namespace
// with these maps, and in new namespaces of the other kinds in flags. The kernel creates
// the user namespace first, so that the user namespace owns the other namespaces.
func (m Maps) SysProcAttr(flags uintptr) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:  flags | syscall.CLONE_NEWUSER,
		UidMappings: sysProcMap(m.UIDs), GidMappings: sysProcMap(m.GIDs),
		// Containers need setgroups(2) for supplementary groups.
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

package oci

import (
	"maps"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// updateField is where limits stand in an UpdateContainerResourcesRequest.
const updateField = "linux"

// Update is what has to be done to change the limits of a container.
type Update struct {
	// Resources are for the OCI runtime; nil when there is nothing for it.
	Resources *specs.LinuxResources
	// Hugepages are limits in bytes by page size. runc leaves them alone in an
	// update, and even puts back those of the creation, so they are set after it.
	Hugepages map[string]uint64
	// OOMScoreAdj is for the processes; nil to leave it.
	OOMScoreAdj *int
	// Now are the limits in force when all this is done.
	Now *cri.LinuxContainerResources
	// Warnings say where the machine allows less than was asked for.
	Warnings []string
}

// Update plans a change of the limits that a container has; fields of r that are
// 0 or empty stay as they are. It fails with ErrInvalidArgument, before anything
// is done, where r breaks a rule by itself or together with what it leaves alone.
func (b *Builder) Update(has, r *cri.LinuxContainerResources) (*Update, error) {
	if err := b.CheckResources(updateField, r); err != nil {
		return nil, err
	}
	u := &Update{Now: merge(has, r)}
	if err := b.CheckResources(updateField, u.Now); err != nil {
		return nil, err
	}
	var err error
	if u.Resources, u.Warnings, err = b.translate(updateField, whole(u.Now, r)); err != nil {
		return nil, err
	}
	u.Resources.HugepageLimits = nil
	if b.host.Hugetlb || b.host.HybridHugetlb {
		u.Hugepages = hugepages(u.Now)
	}
	if m := u.Resources.Memory; m != nil && b.host.CgroupV2 {
		// There, a limit below the use kills rather than failing.
		m.CheckBeforeUpdate = ptr(true)
	}
	if u.Resources.CPU == nil && u.Resources.Memory == nil && len(u.Resources.Unified) == 0 {
		u.Resources = nil
	}
	if v := r.GetOomScoreAdj(); v != 0 {
		adj, warning := b.OOMScoreAdj(v)
		u.OOMScoreAdj = &adj
		if warning != "" {
			u.Warnings = append(u.Warnings, warning)
		}
	}
	return u, nil
}

// merge lays the fields that are set in r over those of has.
func merge(has, r *cri.LinuxContainerResources) *cri.LinuxContainerResources {
	now := &cri.LinuxContainerResources{}
	if has != nil {
		now = proto.CloneOf(has)
	}
	limits := now.GetHugepageLimits()
	// A container that may not swap goes on so with another limit of memory.
	follows := r.GetMemorySwapLimitInBytes() == 0 && has.GetMemorySwapLimitInBytes() == has.GetMemoryLimitInBytes()
	now.HugepageLimits = nil // proto.Merge would append
	proto.Merge(now, r)
	now.HugepageLimits = mergeHugepages(limits, r.GetHugepageLimits())
	if follows && now.GetMemorySwapLimitInBytes() != 0 {
		now.MemorySwapLimitInBytes = now.GetMemoryLimitInBytes()
	}
	return now
}

func mergeHugepages(has, r []*cri.HugepageLimit) []*cri.HugepageLimit {
	var out []*cri.HugepageLimit
	at := make(map[string]int)
	for _, h := range append(has[:len(has):len(has)], r...) {
		if i, ok := at[h.GetPageSize()]; ok {
			out[i] = proto.CloneOf(h)
			continue
		}
		at[h.GetPageSize()] = len(out)
		out = append(out, proto.CloneOf(h))
	}
	return out
}

// whole is r with those fields that only have a meaning together: on v2 quota
// and period are one file, and the limit of swap is the rest of one for both.
func whole(now, r *cri.LinuxContainerResources) *cri.LinuxContainerResources {
	out := proto.CloneOf(r)
	if r.GetCpuQuota() != 0 || r.GetCpuPeriod() != 0 {
		out.CpuQuota, out.CpuPeriod = now.GetCpuQuota(), now.GetCpuPeriod()
	}
	if r.GetMemoryLimitInBytes() != 0 || r.GetMemorySwapLimitInBytes() != 0 {
		out.MemoryLimitInBytes, out.MemorySwapLimitInBytes = now.GetMemoryLimitInBytes(), now.GetMemorySwapLimitInBytes()
		if v := now.GetUnified()[swapMax]; v != "" {
			out.Unified = maps.Clone(out.Unified)
			if out.Unified == nil {
				out.Unified = make(map[string]string)
			}
			out.Unified[swapMax] = v
		}
	}
	return out
}

// FullResources are the limits of a container as the OCI runtime is told them when an
// update has failed, those that it never had said outright: a runtime that keeps
// them elsewhere than in the cgroup, as in a systemd unit, would not know.
func (b *Builder) FullResources(has *cri.LinuxContainerResources) (*specs.LinuxResources, error) {
	full := merge(&cri.LinuxContainerResources{CpuShares: 1024, CpuQuota: -1, MemoryLimitInBytes: -1}, has)
	full.Unified = has.GetUnified()
	res, _, err := b.translate(updateField, full)
	return res, err
}

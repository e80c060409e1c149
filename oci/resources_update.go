package oci

import (
	"maps"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// updateField is the field with the limits in an UpdateContainerResourcesRequest.
const updateField = "linux"

// Update describes a change of the limits of a container.
type Update struct {
	// Resources are the limits for the OCI runtime, or nil if there are none.
	Resources *specs.LinuxResources
	// Hugepages are limits in bytes by page size. The daemon sets them after the runtime's
	// update, because runc ignores them in an update and restores the limits of the creation.
	Hugepages map[string]uint64
	// OOMScoreAdj is the new value for the processes, or nil for no change.
	OOMScoreAdj *int
	// Now contains all limits of the container after the change.
	Now *cri.LinuxContainerResources
	// Warnings describe limits that the host does not support.
	Warnings []string
}

// Update plans a change of the limits has of a container. Fields of r that are 0 or empty do
// not change. Update returns ErrInvalidArgument if r is not valid by itself or together with
// the limits that do not change.
func (b *Builder) Update(has, r *cri.LinuxContainerResources) (*Update, error) {
	if err := b.CheckResources(updateField, r); err != nil {
		return nil, err
	}
	u := &Update{Now: merge(has, r)}
	if err := b.CheckResources(updateField, u.Now); err != nil {
		return nil, err
	}
	var err error
	if u.Resources, u.Warnings, err = b.translate(updateField, withDependentLimits(u.Now, r)); err != nil {
		return nil, err
	}
	u.Resources.HugepageLimits = nil
	if b.host.Hugetlb || b.host.HybridHugetlb {
		u.Hugepages = hugepages(u.Now)
	}
	if m := u.Resources.Memory; m != nil && b.host.CgroupV2 {
		// On v2, a limit below the usage would kill processes instead of being refused.
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

// merge returns has with the fields that are set in r.
func merge(has, r *cri.LinuxContainerResources) *cri.LinuxContainerResources {
	now := &cri.LinuxContainerResources{}
	if has != nil {
		now = proto.CloneOf(has)
	}
	limits := now.GetHugepageLimits()
	// A container without swap must stay without swap when its memory limit changes.
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
	index := make(map[string]int)
	for _, h := range append(has[:len(has):len(has)], r...) {
		if i, ok := index[h.GetPageSize()]; ok {
			out[i] = proto.CloneOf(h)
			continue
		}
		index[h.GetPageSize()] = len(out)
		out = append(out, proto.CloneOf(h))
	}
	return out
}

// withDependentLimits returns r with the limits of now on which limits of r depend: on v2, quota and period are in
// one file, and the swap limit depends on the memory limit.
func withDependentLimits(now, r *cri.LinuxContainerResources) *cri.LinuxContainerResources {
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

// FullResources returns the limits of a container with explicit values for limits that are not
// set. The OCI runtime gets them after a failed update, because it may also keep limits outside
// of the cgroup, as in a systemd unit.
func (b *Builder) FullResources(has *cri.LinuxContainerResources) (*specs.LinuxResources, error) {
	full := merge(&cri.LinuxContainerResources{CpuShares: 1024, CpuQuota: -1, MemoryLimitInBytes: -1}, has)
	full.Unified = has.GetUnified()
	res, _, err := b.translate(updateField, full)
	return res, err
}

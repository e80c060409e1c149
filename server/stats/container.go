// Package stats translates the stats of pod sandboxes and containers into the
// messages of the CRI: the stats that ContainerStats and PodSandboxStats return,
// and the cAdvisor metrics that ListPodSandboxMetrics returns.
//
// The package reads no cgroup. The packages container and sandbox read the
// cgroups, and package server chooses the pods and containers.
package stats

import (
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/internal/cgroup"
)

// Container returns the CRI stats of a container. A container without processes
// has only the stats of its writable layer.
func Container(s container.Stats) *cri.ContainerStats {
	c := s.Container
	stats := &cri.ContainerStats{
		Attributes: &cri.ContainerAttributes{
			Id: c.ID, Metadata: c.Config.GetMetadata(), Labels: c.Config.GetLabels(), Annotations: c.Config.GetAnnotations(),
		},
		WritableLayer: &cri.FilesystemUsage{
			Timestamp: s.Layer.Time.UnixNano(), FsId: &cri.FilesystemIdentifier{Mountpoint: s.Layer.Mountpoint},
			UsedBytes: uint64Value(s.Layer.Bytes), InodesUsed: uint64Value(s.Layer.Inodes),
		},
	}
	if u := s.Usage; u != nil {
		stats.Cpu, stats.Memory, stats.Swap, stats.Io = cpuUsage(u), memoryUsage(u), swapUsage(u), ioUsage(u)
	}
	return stats
}

// cpuUsage returns the CPU stats of a cgroup. It omits UsageNanoCores before the
// second reading, because a rate needs two readings and 0 would mean an idle
// container. The kubelet accepts CPU stats without a rate.
func cpuUsage(u *cgroup.Usage) *cri.CpuUsage {
	cpu := &cri.CpuUsage{Timestamp: u.Time.UnixNano(), UsageCoreNanoSeconds: uint64Value(u.CPUUsage), Psi: psiStats(u.CPUPressure)}
	if u.NanoCores != nil {
		cpu.UsageNanoCores = uint64Value(*u.NanoCores)
	}
	return cpu
}

// memoryUsage returns the memory stats of a cgroup. AvailableBytes needs a limit.
func memoryUsage(u *cgroup.Usage) *cri.MemoryUsage {
	m := u.Memory
	memory := &cri.MemoryUsage{
		Timestamp: u.Time.UnixNano(), WorkingSetBytes: uint64Value(m.WorkingSet), UsageBytes: uint64Value(m.Usage), RssBytes: uint64Value(m.RSS),
		PageFaults: uint64Value(m.PageFaults), MajorPageFaults: uint64Value(m.MajorFault), Psi: psiStats(u.MemoryPressure),
	}
	if m.Limit != 0 {
		memory.AvailableBytes = uint64Value(available(m.Limit, m.WorkingSet))
	}
	return memory
}

// swapUsage returns the swap stats of a cgroup. SwapAvailableBytes needs a limit.
func swapUsage(u *cgroup.Usage) *cri.SwapUsage {
	swap := &cri.SwapUsage{Timestamp: u.Time.UnixNano(), SwapUsageBytes: uint64Value(u.Memory.Swap)}
	if u.Memory.SwapLimit != cgroup.NoLimit {
		swap.SwapAvailableBytes = uint64Value(available(u.Memory.SwapLimit, u.Memory.Swap))
	}
	return swap
}

// ioUsage returns the I/O stats of a cgroup. It returns nil if the kernel does
// not measure pressure, because IoUsage contains nothing else.
func ioUsage(u *cgroup.Usage) *cri.IoUsage {
	if u.IOPressure == nil {
		return nil
	}
	return &cri.IoUsage{Timestamp: u.Time.UnixNano(), Psi: psiStats(u.IOPressure)}
}

func psiStats(p *cgroup.Pressure) *cri.PsiStats {
	if p == nil {
		return nil
	}
	return &cri.PsiStats{Some: psiData(p.Some), Full: psiData(p.Full)}
}

func psiData(s cgroup.Stall) *cri.PsiData {
	return &cri.PsiData{Total: uint64(max(s.Total, 0) / time.Nanosecond), Avg10: s.Avg10, Avg60: s.Avg60, Avg300: s.Avg300}
}

// available returns limit minus used, and 0 if used exceeds the limit.
func available(limit, used uint64) uint64 { return limit - min(limit, used) }

func uint64Value(v uint64) *cri.UInt64Value { return &cri.UInt64Value{Value: v} }

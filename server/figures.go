package server

import (
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/internal/cgroup"
)

func containerStats(s container.Stats) *cri.ContainerStats {
	c := s.Container
	st := &cri.ContainerStats{
		Attributes: &cri.ContainerAttributes{
			Id: c.ID, Metadata: c.Config.GetMetadata(), Labels: c.Config.GetLabels(), Annotations: c.Config.GetAnnotations(),
		},
		WritableLayer: &cri.FilesystemUsage{
			Timestamp: s.Layer.Time.UnixNano(), FsId: &cri.FilesystemIdentifier{Mountpoint: s.Layer.Mountpoint},
			UsedBytes: value(s.Layer.Bytes), InodesUsed: value(s.Layer.Inodes),
		},
	}
	if u := s.Usage; u != nil {
		st.Cpu, st.Memory, st.Swap, st.Io = cpuUsage(u), memoryUsage(u), swapUsage(u), ioUsage(u)
	}
	return st
}

// cpuUsage leaves the rate out where nothing was read before: the kubelet then
// takes the usage alone, as zero would be a claim.
func cpuUsage(u *cgroup.Usage) *cri.CpuUsage {
	c := &cri.CpuUsage{Timestamp: u.Time.UnixNano(), UsageCoreNanoSeconds: value(u.CPUUsage), Psi: psi(u.CPUPressure)}
	if u.NanoCores != nil {
		c.UsageNanoCores = value(*u.NanoCores)
	}
	return c
}

func memoryUsage(u *cgroup.Usage) *cri.MemoryUsage {
	m := u.Memory
	out := &cri.MemoryUsage{
		Timestamp: u.Time.UnixNano(), WorkingSetBytes: value(m.WorkingSet), UsageBytes: value(m.Usage), RssBytes: value(m.RSS),
		PageFaults: value(m.PageFaults), MajorPageFaults: value(m.MajorFault), Psi: psi(u.MemoryPressure),
	}
	if m.Limit != 0 {
		out.AvailableBytes = value(left(m.Limit, m.WorkingSet))
	}
	return out
}

func swapUsage(u *cgroup.Usage) *cri.SwapUsage {
	s := &cri.SwapUsage{Timestamp: u.Time.UnixNano(), SwapUsageBytes: value(u.Memory.Swap)}
	if u.Memory.SwapLimit != cgroup.NoLimit {
		s.SwapAvailableBytes = value(left(u.Memory.SwapLimit, u.Memory.Swap))
	}
	return s
}

// ioUsage is nil where the kernel measures no pressure: there is nothing else
// in it.
func ioUsage(u *cgroup.Usage) *cri.IoUsage {
	if u.IOPressure == nil {
		return nil
	}
	return &cri.IoUsage{Timestamp: u.Time.UnixNano(), Psi: psi(u.IOPressure)}
}

func psi(p *cgroup.Pressure) *cri.PsiStats {
	if p == nil {
		return nil
	}
	return &cri.PsiStats{Some: psiData(p.Some), Full: psiData(p.Full)}
}

func psiData(s cgroup.Stall) *cri.PsiData {
	return &cri.PsiData{Total: uint64(max(s.Total, 0) / time.Nanosecond), Avg10: s.Avg10, Avg60: s.Avg60, Avg300: s.Avg300}
}

func left(limit, used uint64) uint64 { return limit - min(limit, used) }

func value(v uint64) *cri.UInt64Value { return &cri.UInt64Value{Value: v} }

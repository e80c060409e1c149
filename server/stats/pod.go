package stats

import (
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/sandbox"
)

// PodStats are the stats of a pod sandbox and of its running containers.
type PodStats struct {
	sandbox.Stats
	Containers []container.Stats
}

// Pod returns the CRI stats of a pod sandbox and of its containers.
func Pod(s PodStats) *cri.PodSandboxStats {
	linux := &cri.LinuxPodSandboxStats{Network: networkUsage(s.Stats)}
	for _, c := range s.Containers {
		linux.Containers = append(linux.Containers, Container(c))
	}
	if u := s.Usage; u != nil {
		linux.Cpu, linux.Memory, linux.Io = cpuUsage(u), memoryUsage(u), ioUsage(u)
		linux.Process = &cri.ProcessUsage{Timestamp: s.Time.UnixNano(), ProcessCount: uint64Value(uint64(s.Processes))}
	}
	config := s.Pod.Config
	return &cri.PodSandboxStats{
		Attributes: &cri.PodSandboxAttributes{
			Id: s.Pod.ID, Metadata: config.GetMetadata(), Labels: config.GetLabels(), Annotations: config.GetAnnotations(),
		},
		Linux: linux,
	}
}

// networkUsage returns the network stats of a pod. It returns nil for a pod in
// the network namespace of the host, because the traffic of the host's interfaces
// is not the pod's.
func networkUsage(s sandbox.Stats) *cri.NetworkUsage {
	if s.Links == nil {
		return nil
	}
	network := &cri.NetworkUsage{Timestamp: s.Time.UnixNano()}
	for _, l := range s.Links {
		if l.Name == sandbox.DefaultLink {
			network.DefaultInterface = interfaceUsage(l)
			continue
		}
		network.Interfaces = append(network.Interfaces, interfaceUsage(l))
	}
	return network
}

func interfaceUsage(l sandbox.Link) *cri.NetworkInterfaceUsage {
	return &cri.NetworkInterfaceUsage{
		Name: l.Name, RxBytes: uint64Value(l.RxBytes), RxErrors: uint64Value(l.RxErrors), TxBytes: uint64Value(l.TxBytes), TxErrors: uint64Value(l.TxErrors),
	}
}

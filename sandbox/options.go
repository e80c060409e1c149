package sandbox

import (
	"slices"

	"github.com/criserver/criserver/sandbox/network"
	"github.com/criserver/criserver/sandbox/podspec"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var protocols = map[cri.Protocol]string{
	cri.Protocol_TCP: "tcp", cri.Protocol_UDP: "udp", cri.Protocol_SCTP: "sctp",
}

func namespaceOptions(c *cri.PodSandboxConfig) *cri.NamespaceOption {
	return c.GetLinux().GetSecurityContext().GetNamespaceOptions()
}

// The modes default to POD, which is the zero value, also when no options are
// given at all (CRI, NamespaceOption).
func hostNetwork(c *cri.PodSandboxConfig) bool {
	return namespaceOptions(c).GetNetwork() == cri.NamespaceMode_NODE
}

func hostIPC(c *cri.PodSandboxConfig) bool {
	return namespaceOptions(c).GetIpc() == cri.NamespaceMode_NODE
}

// networkPod is what CNI plugins are told.
func networkPod(r *record, netns string, spec *podspec.Spec) network.Pod {
	c := spec.Config
	p := network.Pod{
		ID:           r.ID,
		Name:         spec.Name.Name,
		Namespace:    spec.Name.Namespace,
		UID:          spec.Name.UID,
		NetNS:        netns,
		PortMappings: portMappings(c),
		Annotations:  c.Annotations,
		CgroupPath:   cgroupPath(r.CgroupParent),
	}
	p.Bandwidth, _ = bandwidth(c) // was validated
	p.DNS = spec.DNS
	return p
}

// portMappings returns the mappings that have a host port, each once. Those of a single host
// address come first: plugins make rules in this order, and the first match counts.
func portMappings(c *cri.PodSandboxConfig) []network.PortMapping {
	var out []network.PortMapping
	for _, p := range c.PortMappings {
		if p.GetHostPort() == 0 {
			continue
		}
		m := network.PortMapping{HostPort: p.HostPort, ContainerPort: p.ContainerPort, Protocol: protocols[p.Protocol], HostIP: p.HostIp}
		if !slices.Contains(out, m) {
			out = append(out, m)
		}
	}
	slices.SortStableFunc(out, func(a, b network.PortMapping) int {
		switch {
		case allHosts(a.HostIP) == allHosts(b.HostIP):
			return 0
		case allHosts(b.HostIP):
			return -1
		}
		return 1
	})
	return out
}

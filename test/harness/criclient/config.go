package criclient

import (
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Pod is a pod sandbox that a test created.
type Pod struct {
	ID     string
	Config *cri.PodSandboxConfig
}

// PodConfig returns the configuration of a pod as the kubelet sends it.
func PodConfig(namespace, name, logDirectory string) *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Namespace: namespace, Uid: "uid-" + name},
		Hostname:     name,
		LogDirectory: logDirectory,
		Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER},
			Seccomp:          &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault},
		}},
	}
}

// ContainerConfig returns the configuration of a container as the kubelet sends it.
func (p *Pod) ContainerConfig(name, image string, command ...string) *cri.ContainerConfig {
	return &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: name},
		Image:    &cri.ImageSpec{Image: image},
		Command:  command,
		LogPath:  name + ".log",
		Linux: &cri.LinuxContainerConfig{
			Resources: &cri.LinuxContainerResources{CpuShares: 102, MemoryLimitInBytes: 256 << 20, OomScoreAdj: 100},
			SecurityContext: &cri.LinuxContainerSecurityContext{
				NamespaceOptions: p.Config.GetLinux().GetSecurityContext().GetNamespaceOptions(),
				Seccomp:          &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault},
			},
		},
	}
}

package oci

import (
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CheckSandbox says what is wrong with the confinement that a pod sandbox asks
// for. No process of ours runs in it that it would confine, and containers ask
// for their own; but what could not be had for them is refused for the pod, so
// that nobody takes it for applied. Errors are Build's.
func (b *Builder) CheckSandbox(sc *cri.LinuxSandboxSecurityContext) error {
	same := &cri.LinuxContainerSecurityContext{
		Seccomp: sc.GetSeccomp(), SeccompProfilePath: sc.GetSeccompProfilePath(), Apparmor: sc.GetApparmor(),
		SelinuxOptions: sc.GetSelinuxOptions(),
	}
	if _, _, err := b.SeccompProfile(same); err != nil {
		return err
	}
	if _, err := b.AppArmorProfile(same); err != nil {
		return err
	}
	return b.checkSELinux(same)
}

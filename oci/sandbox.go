package oci

import (
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CheckSandbox checks the confinement that a pod sandbox asks for, by the rules for
// containers. The confinement has no effect, because no process runs in a sandbox:
// each container asks for its own. CheckSandbox returns the errors of Build.
func (b *Builder) CheckSandbox(sc *cri.LinuxSandboxSecurityContext) error {
	same := &cri.LinuxContainerSecurityContext{
		Seccomp: sc.GetSeccomp(), SeccompProfilePath: sc.GetSeccompProfilePath(), Apparmor: sc.GetApparmor(),
	}
	if _, _, err := b.SeccompProfile(same); err != nil {
		return err
	}
	if _, err := b.AppArmorProfile(same); err != nil {
		return err
	}
	return b.checkSELinux(sc.GetSelinuxOptions())
}

package oci

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/oci/selinux"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// securityLabels sets the AppArmor profile and the SELinux labels. A request for an AppArmor
// profile that is missing is an error. On a host without SELinux, SELinux options are
// ignored, as the Kubernetes API documents.
func (c *specBuilder) securityLabels() error {
	if err := c.checkSELinux(c.in.Security.GetSelinuxOptions()); err != nil {
		return err
	}
	c.spec.Process.SelinuxLabel, c.spec.Linux.MountLabel = c.in.ProcessLabel, c.in.MountLabel
	profile, err := c.AppArmorProfile(c.in.Security)
	if err != nil {
		return err
	}
	c.spec.Process.ApparmorProfile = profile
	return nil
}

// checkSELinux returns an error for malformed SELinux options. Package selinux makes
// the labels. Options mean nothing without SELinux, so they are not checked there.
func (b *Builder) checkSELinux(o *cri.SELinuxOption) error {
	if !b.host.SELinux {
		return nil
	}
	if err := selinux.CheckOptions(o); err != nil {
		return fmt.Errorf("linux.security_context.%w", err)
	}
	return nil
}

// AppArmorProfile returns the name of the profile that a request names in the current or in the
// deprecated field, or "" for none. On a host without AppArmor, the default is no profile. A
// privileged container has no default profile, but gets a profile that it names.
// AppArmorProfile returns ErrFailedPrecondition if the request names a profile and the host has
// no AppArmor.
func (b *Builder) AppArmorProfile(sc *cri.LinuxContainerSecurityContext) (string, error) {
	kind, name, err := appArmorOf(sc)
	if err != nil {
		return "", err
	}
	switch kind {
	case cri.SecurityProfile_Unconfined:
		return "", nil
	case cri.SecurityProfile_RuntimeDefault:
		if !b.host.AppArmor || sc.GetPrivileged() {
			return "", nil
		}
		return b.defaults.AppArmorProfile, nil
	}
	if !b.host.AppArmor {
		return "", fmt.Errorf("linux.security_context.apparmor: profile %q: AppArmor is not enabled on this machine: %w", name, errdefs.ErrFailedPrecondition)
	}
	return name, nil
}

// DefaultAppArmorProfile returns the profile for "RuntimeDefault", or "".
func (b *Builder) DefaultAppArmorProfile() string { return b.defaults.AppArmorProfile }

func appArmorOf(sc *cri.LinuxContainerSecurityContext) (kind cri.SecurityProfile_ProfileType, name string, err error) {
	if p := sc.GetApparmor(); p != nil {
		kind, name = p.GetProfileType(), strings.TrimPrefix(p.GetLocalhostRef(), "localhost/")
	} else if kind, name, err = legacyAppArmor(sc.GetApparmorProfile()); err != nil {
		return 0, "", err
	}
	return kind, name, checkAppArmor(kind, name)
}

func legacyAppArmor(ref string) (cri.SecurityProfile_ProfileType, string, error) {
	switch name, local := strings.CutPrefix(ref, "localhost/"); {
	case ref == "", ref == "runtime/default":
		return cri.SecurityProfile_RuntimeDefault, "", nil
	case ref == "unconfined":
		return cri.SecurityProfile_Unconfined, "", nil
	case local:
		return cri.SecurityProfile_Localhost, name, nil
	}
	return 0, "", invalid("linux.security_context.apparmor_profile %q must be runtime/default, unconfined or localhost/NAME", ref)
}

// checkAppArmor checks the syntax of a profile name. The name is written to an interface of the
// kernel, where white space would end it.
func checkAppArmor(kind cri.SecurityProfile_ProfileType, name string) error {
	const field = "linux.security_context.apparmor"
	switch kind {
	case cri.SecurityProfile_RuntimeDefault, cri.SecurityProfile_Unconfined:
		if name != "" {
			return invalid(field+": localhost_ref %q needs the profile type Localhost", name)
		}
		return nil
	case cri.SecurityProfile_Localhost:
	default:
		return invalid(field+": profile type %d is unknown", kind)
	}
	printable := func(r rune) bool { return r > ' ' && r != 0x7f }
	if name == "" || strings.IndexFunc(name, func(r rune) bool { return !printable(r) }) >= 0 {
		return invalid(field+": localhost_ref %q must be the name of a profile", name)
	}
	return nil
}

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

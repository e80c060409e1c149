package oci

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// confine is about AppArmor and SELinux. A confinement that is asked for by
// name and cannot be had is an error, never silently left out.
func (c *build) confine() error {
	if o := c.in.Security.GetSelinuxOptions(); !c.privileged() && o != nil &&
		o.GetUser()+o.GetRole()+o.GetType()+o.GetLevel() != "" {
		if !c.host.SELinux {
			return fmt.Errorf("linux.security_context.selinux_options: SELinux is not enabled on this machine: %w", errdefs.ErrFailedPrecondition)
		}
		return fmt.Errorf("linux.security_context.selinux_options: labels are not supported: %w", errdefs.ErrNotImplemented)
	}
	profile, err := c.appArmor()
	if err != nil {
		return err
	}
	c.spec.Process.ApparmorProfile = profile
	return nil
}

// appArmor returns the name of the profile to run under, or "".
func (c *build) appArmor() (string, error) {
	if c.privileged() {
		return "", nil
	}
	kind, name := cri.SecurityProfile_RuntimeDefault, ""
	if p := c.in.Security.GetApparmor(); p != nil {
		kind, name = p.GetProfileType(), p.GetLocalhostRef()
	} else {
		switch ref := c.in.Security.GetApparmorProfile(); {
		case ref == "", ref == "runtime/default":
		case ref == "unconfined":
			kind = cri.SecurityProfile_Unconfined
		case strings.HasPrefix(ref, "localhost/"):
			kind, name = cri.SecurityProfile_Localhost, ref
		default:
			return "", invalid("linux.security_context.apparmor_profile %q is unknown", ref)
		}
	}
	switch kind {
	case cri.SecurityProfile_Unconfined:
		return "", nil
	case cri.SecurityProfile_RuntimeDefault:
		if !c.host.AppArmor {
			return "", nil
		}
		return c.defaults.AppArmorProfile, nil
	}
	name = strings.TrimPrefix(name, "localhost/")
	if name == "" {
		return "", invalid("linux.security_context.apparmor: localhost_ref is empty")
	}
	if !c.host.AppArmor {
		return "", fmt.Errorf("AppArmor profile %q: AppArmor is not enabled on this machine: %w", name, errdefs.ErrFailedPrecondition)
	}
	return name, nil
}

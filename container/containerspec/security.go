package containerspec

import (
	"fmt"

	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/selinux"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Security is how a container is confined.
type Security struct {
	// Context is the checked message, from which package oci builds the capabilities and
	// the masked paths. If it is nil, the container has the defaults.
	Context        *cri.LinuxContainerSecurityContext
	Privileged     bool
	ReadonlyRootFS bool
	// AppArmorProfile is the name of the AppArmor profile, or "" for none.
	AppArmorProfile string
	// SeccompFile is the file of the seccomp profile, or "" if the profile is not a
	// Localhost profile.
	SeccompFile string
	// SELinux are the SELinux options, or nil.
	SELinux *cri.SELinuxOption
}

func (p *parser) security() error {
	sc := p.securityContext()
	p.spec.Security = Security{
		Context: sc, Privileged: sc.GetPrivileged(), ReadonlyRootFS: sc.GetReadonlyRootfs(), SELinux: sc.GetSelinuxOptions(),
	}
	// The CRI requires that the pod of a privileged container is privileged, too.
	if sc.GetPrivileged() && !p.Pod.GetLinux().GetSecurityContext().GetPrivileged() {
		return invalid("config.linux.security_context.privileged: the pod sandbox is not privileged")
	}
	if err := oci.CheckSecurityContext(sc); err != nil {
		return fmt.Errorf("config.%w", err)
	}
	if p.Node == nil {
		return nil
	}
	return p.confinement(p.Node, sc)
}

// confinement parses the choices that depend on the node.
func (p *parser) confinement(n *Node, sc *cri.LinuxContainerSecurityContext) error {
	s := &p.spec.Security
	if n.SELinux {
		if err := selinux.CheckOptions(sc.GetSelinuxOptions()); err != nil {
			return fmt.Errorf("config.linux.security_context.%w", err)
		}
	}
	var err error
	if s.AppArmorProfile, err = n.Rules.AppArmorProfile(sc); err != nil {
		return fmt.Errorf("config.%w", err)
	}
	kind, file, err := n.Rules.SeccompProfile(sc)
	if err != nil {
		return fmt.Errorf("config.%w", err)
	}
	if kind == cri.SecurityProfile_Localhost {
		s.SeccompFile = file
	}
	return nil
}

package container

import (
	"context"
	"fmt"

	"github.com/criserver/criserver/internal/rootpath"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// AppArmor loads the profiles that containers run under; *apparmor.Profiles
// does.
type AppArmor interface {
	// Ensure returns nil when the profile is loaded.
	Ensure(ctx context.Context, profile string) error
}

// checkAppArmor refuses a container whose profile is not loaded, in words that
// name it; the runtime would fail with less.
func (m *Manager) checkAppArmor(ctx context.Context, sc *cri.LinuxContainerSecurityContext) error {
	name, err := m.cfg.Builder.AppArmorProfile(sc)
	if err != nil || name == "" || m.cfg.AppArmor == nil {
		return err
	}
	if err := m.cfg.AppArmor.Ensure(ctx, name); err != nil {
		return fmt.Errorf("config.linux.security_context.apparmor: %w", err)
	}
	return nil
}

// maxSeccompProfile bounds the file of a seccomp profile, in bytes.
const maxSeccompProfile = 4 << 20

// readSeccomp reads the profile of the node that the request names, if any.
func (m *Manager) readSeccomp(sc *cri.LinuxContainerSecurityContext) ([]byte, error) {
	kind, path, err := m.cfg.Builder.SeccompProfile(sc)
	if err != nil || kind != cri.SecurityProfile_Localhost {
		return nil, err
	}
	b, err := rootpath.ReadFile("/", path, maxSeccompProfile)
	if err != nil {
		return nil, invalid("config.linux.security_context.seccomp: localhost_ref: %v", err)
	}
	return b, nil
}

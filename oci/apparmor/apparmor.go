// Package apparmor checks that the AppArmor profiles of containers are loaded. It loads the
// default profile of the daemon itself if the profile is missing. It only looks for the
// profiles of the operator.
package apparmor

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/oplock"
	"github.com/moby/profiles/apparmor"
)

// DefaultProfile is the name of the profile that the daemon loads itself.
const DefaultProfile = "criserver-default"

// kernel contains the operations on the host.
type kernel interface {
	IsLoaded(name string) (bool, error)
	// Install loads the default profile under a name.
	Install(name string) error
}

// Profiles are the AppArmor profiles of the host. It is safe for concurrent use.
type Profiles struct {
	kernel kernel
	loads  oplock.Locks // one load at a time per profile
}

// New returns the profiles of the host. AppArmor must be enabled.
func New() *Profiles { return &Profiles{kernel: machine{}} }

// Ensure returns nil if the profile is loaded. It loads the default profile if necessary, for
// instance after the administrator has unloaded it. It returns ErrFailedPrecondition if another profile
// is not loaded, or if the default cannot be loaded.
func (p *Profiles) Ensure(ctx context.Context, name string) error {
	loaded, err := p.kernel.IsLoaded(name)
	if err != nil {
		return fmt.Errorf("AppArmor profile %q: %w", name, err)
	}
	if loaded {
		return nil
	}
	if name != DefaultProfile {
		return fmt.Errorf("AppArmor profile %q is not loaded on this machine: %w", name, errdefs.ErrFailedPrecondition)
	}
	return p.install(ctx, name)
}

func (p *Profiles) install(ctx context.Context, name string) error {
	unlock, err := p.loads.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	if loaded, err := p.kernel.IsLoaded(name); err == nil && loaded {
		return nil
	}
	if err := p.kernel.Install(name); err != nil {
		return fmt.Errorf("load AppArmor profile %q: %w: %w", name, err, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// machine is the host's kernel, with apparmor_parser to compile profiles.
type machine struct{}

func (machine) IsLoaded(name string) (bool, error) { return apparmor.IsLoaded(name) }

func (machine) Install(name string) error { return apparmor.InstallDefault(name) }

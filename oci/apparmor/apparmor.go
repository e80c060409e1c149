// Package apparmor sees to it that the profiles containers are to run under are
// loaded: the daemon's own default, which it makes when it is missing, and those
// of the operator, which it only looks for.
package apparmor

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/oplock"
	"github.com/moby/profiles/apparmor"
)

// DefaultProfile is the name of the profile that the daemon makes itself.
const DefaultProfile = "criserver-default"

// kernel is what is asked of the machine.
type kernel interface {
	IsLoaded(name string) (bool, error)
	// Install makes the default profile under a name and loads it.
	Install(name string) error
}

// Profiles are those of the machine. It is safe for concurrent use.
type Profiles struct {
	kernel kernel
	loads  oplock.Locks // one load at a time: the others find it done
}

// New returns the machine's profiles. AppArmor must be enabled.
func New() *Profiles { return &Profiles{kernel: machine{}} }

// Ensure returns nil when the profile is loaded. The default one is loaded if it
// is not, also when somebody has unloaded it since. ErrFailedPrecondition where
// another one is missing, or the default cannot be loaded.
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

// machine is the kernel, with apparmor_parser to compile profiles.
type machine struct{}

func (machine) IsLoaded(name string) (bool, error) { return apparmor.IsLoaded(name) }

func (machine) Install(name string) error { return apparmor.InstallDefault(name) }

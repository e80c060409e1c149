package daemon

import (
	"context"
	"fmt"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/apparmor"
	"github.com/criserver/criserver/oci/selinux"
	"github.com/criserver/criserver/sandbox"
)

// containerDefaults are what the operator has configured for every container.
func containerDefaults(cfg config.Config, host oci.Host, profile string) (oci.Defaults, error) {
	d := oci.Defaults{
		Capabilities: cfg.Container.Capabilities, PidsLimit: cfg.Container.PidsLimit, AppArmorProfile: profile,
		Seccomp: oci.SeccompDefaults{Unasked: cfg.Container.SeccompUnasked},
	}
	var err error
	if d.Rlimits, err = rlimits(cfg, host); err != nil {
		return oci.Defaults{}, err
	}
	for _, f := range []struct {
		key, path string
		to        *[]byte
	}{
		{"container.seccomp_profile", cfg.Container.SeccompProfile, &d.Seccomp.Profile},
		{"container.privileged_seccomp_profile", cfg.Container.PrivilegedSeccompProfile, &d.Seccomp.Privileged},
	} {
		if f.path == "" {
			continue
		}
		b, err := os.ReadFile(f.path)
		if err == nil {
			err = oci.CheckSeccomp(b)
		}
		if err != nil {
			return oci.Defaults{}, fmt.Errorf("%s: %s: %w", f.key, f.path, err)
		}
		*f.to = b
	}
	return d, nil
}

// rlimits are the resource limits of containers. What the host cannot give is
// logged here once instead of with each container.
func rlimits(cfg config.Config, host oci.Host) ([]specs.POSIXRlimit, error) {
	var limits []specs.POSIXRlimit
	for _, s := range cfg.Container.DefaultUlimits {
		u, err := config.ParseUlimit(s)
		if err != nil {
			return nil, fmt.Errorf("container.default_ulimits: %w", err)
		}
		limits = append(limits, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: u.Soft, Hard: u.Hard})
	}
	fit, warnings := host.FitRlimits(limits)
	for _, w := range warnings {
		logrus.Warn("container.default_ulimits: " + w)
	}
	return fit, nil
}

// prepareAppArmor returns the name of the default profile, loaded, or "" where
// there is none. That the daemon's own cannot be loaded is no reason not to run:
// containers are then as they are on a host without AppArmor.
func prepareAppArmor(ctx context.Context, cfg config.Config, host oci.Host) (profile string, profiles container.AppArmor, err error) {
	if !host.AppArmor {
		return "", nil, nil
	}
	p := apparmor.New()
	name := cfg.Container.AppArmorProfile
	if name == "" {
		return "", p, nil
	}
	if err := p.Ensure(ctx, name); err != nil {
		if name != apparmor.DefaultProfile {
			return "", nil, fmt.Errorf("container.apparmor_profile: %w", err)
		}
		logrus.WithError(err).Warn("containers run without an AppArmor profile unless they name one")
		return "", p, nil
	}
	return name, p, nil
}

// seLinux returns who gives out labels, or nil for nobody. From then on host
// tells what is in force.
func seLinux(cfg config.Config, host *oci.Host) *selinux.Labels {
	if host.SELinux = host.SELinux && cfg.SELinux; !host.SELinux {
		return nil
	}
	return selinux.New()
}

// A nil pointer in an interface is not a nil interface.

func (h *host) podLabels() sandbox.Labels {
	if h.labels == nil {
		return nil
	}
	return h.labels
}

func (h *host) containerLabels() container.Labels {
	if h.labels == nil {
		return nil
	}
	return h.labels
}

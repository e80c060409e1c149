// Package defaults makes the operator's defaults for pods and containers from the configuration and the files that it
// names: seccomp and AppArmor profiles, limits, devices, sysctls, hooks and classes of resources.
package defaults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/container/bundle"
	"github.com/criserver/criserver/container/containerspec"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/apparmor"
	"github.com/criserver/criserver/oci/hooks"
	"github.com/criserver/criserver/oci/qos"
)

// NewBuilder returns the builder of OCI configurations with the defaults of the operator, and
// the AppArmor profiles, which are nil on a host without AppArmor.
func NewBuilder(ctx context.Context, cfg config.Config, host oci.Host) (*oci.Builder, bundle.AppArmor, error) {
	profile, profiles, err := loadAppArmor(ctx, cfg.Container.AppArmorProfile, host.AppArmor)
	if err != nil {
		return nil, nil, err
	}
	defaults, err := containerDefaults(cfg, host, profile)
	if err != nil {
		return nil, nil, err
	}
	return oci.NewBuilder(host, defaults), profiles, nil
}

// containerDefaults returns the operator's defaults for all containers.
func containerDefaults(cfg config.Config, host oci.Host, appArmorProfile string) (oci.Defaults, error) {
	d := oci.Defaults{
		Capabilities: cfg.Container.Capabilities, PidsLimit: cfg.Container.PidsLimit, AppArmorProfile: appArmorProfile,
		Seccomp: oci.SeccompDefaults{DefaultForAll: cfg.Container.SeccompUnasked},
	}
	var err error
	if d.Rlimits, err = rlimits(cfg.Container.DefaultUlimits, host); err != nil {
		return oci.Defaults{}, err
	}
	if d.Seccomp.Profile, err = ReadSeccompProfile("container.seccomp_profile", cfg.Container.SeccompProfile); err != nil {
		return oci.Defaults{}, err
	}
	if d.Seccomp.Privileged, err = ReadSeccompProfile("container.privileged_seccomp_profile", cfg.Container.PrivilegedSeccompProfile); err != nil {
		return oci.Defaults{}, err
	}
	return d, nil
}

// ReadSeccompProfile reads the file that a configuration key names. It returns nil if path is
// empty.
func ReadSeccompProfile(key, path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	profile, err := os.ReadFile(path)
	if err == nil {
		err = oci.CheckSeccomp(profile)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", key, path, err)
	}
	return profile, nil
}

// rlimits returns the default resource limits of containers. Limits that the host does not
// allow are lowered and logged here once instead of at each container.
func rlimits(ulimits []string, host oci.Host) ([]specs.POSIXRlimit, error) {
	var limits []specs.POSIXRlimit
	for _, s := range ulimits {
		u, err := config.ParseUlimit(s)
		if err != nil {
			return nil, fmt.Errorf("container.default_ulimits: %w", err)
		}
		limits = append(limits, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: u.Soft, Hard: u.Hard})
	}
	allowed, warnings := host.FitRlimits(limits)
	for _, w := range warnings {
		logrus.Warn("container.default_ulimits: " + w)
	}
	return allowed, nil
}

// loadAppArmor loads the default profile and returns its name, or "" if there is none. If
// the daemon's own profile cannot be loaded, the daemon runs nevertheless, and its
// containers run as on a host without AppArmor.
func loadAppArmor(ctx context.Context, name string, enabled bool) (profile string, profiles bundle.AppArmor, err error) {
	if !enabled {
		return "", nil, nil
	}
	p := apparmor.New()
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

// ResourceClasses returns the operator's classes of block I/O and RDT. It checks the files
// that define them.
func ResourceClasses(cfg config.Config) (qos.BlockIO, qos.RDT, error) {
	blockIO := qos.BlockIO{File: cfg.Container.BlockIOConfigFile}
	rdt := qos.RDT{File: cfg.Container.RDTConfigFile, Root: qos.ResctrlRoot}
	var errs []error
	if err := blockIO.Check(); err != nil {
		errs = append(errs, fmt.Errorf("container.blockio_config_file: %w", err))
	}
	if err := rdt.Check(); err != nil {
		errs = append(errs, fmt.Errorf("container.rdt_config_file: %w", err))
	}
	return blockIO, rdt, errors.Join(errs...)
}

// Hooks returns the OCI hooks in the directories, or nil without directories. It logs the
// hook files that cannot be used: they affect containers, but do not prevent the start of the
// daemon.
func Hooks(dirs []string) *hooks.Dirs {
	if len(dirs) == 0 {
		return nil
	}
	h := hooks.New(dirs)
	if err := h.Check(); err != nil {
		logrus.WithError(err).Error("container.hooks_dirs: containers that may need these hooks cannot be created")
	}
	return h
}

// AdditionalDevices returns the devices of all containers. The configuration is valid.
func AdditionalDevices(list []string) []containerspec.Device {
	var devices []containerspec.Device
	for _, s := range list {
		if d, err := config.ParseDevice(s); err == nil {
			devices = append(devices, containerspec.Device(d))
		}
	}
	return devices
}

// Sysctls returns the sysctls of pods by name. The configuration is valid.
func Sysctls(list []string) map[string]string {
	sysctls := make(map[string]string)
	for _, s := range list {
		if name, value, err := config.ParseSysctl(s); err == nil {
			sysctls[name] = value
		}
	}
	return sysctls
}

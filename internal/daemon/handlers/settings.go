package handlers

import (
	"fmt"
	"os"

	"github.com/sirupsen/logrus"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/container/bundle"
	"github.com/criserver/criserver/internal/daemon/defaults"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/basespec"
)

// readSettings returns the settings of the handlers of the configuration for new containers.
// It logs settings that have no effect on this host.
func readSettings(cfg config.Config, host oci.Host, builder *oci.Builder) (map[string]bundle.Handler, error) {
	settings := make(map[string]bundle.Handler)
	for name, rt := range cfg.Runtimes {
		base, err := readBaseSpec(rt.BaseSpec, builder)
		if err != nil {
			return nil, fmt.Errorf("runtimes.%s.base_spec: %w", name, err)
		}
		profile, err := defaults.ReadSeccompProfile("runtimes."+name+".seccomp_profile", rt.SeccompProfile)
		if err != nil {
			return nil, err
		}
		if rt.WritableCgroups && !host.CgroupV2 {
			logrus.Warnf("runtimes.%s.writable_cgroups has no effect: this host does not have the unified cgroup hierarchy (cgroup v2)", name)
		}
		h := bundle.Handler{
			Base: base, WritableCgroups: rt.WritableCgroups,
			PrivilegedWithoutHostDevices: rt.PrivilegedWithoutHostDevices, AllDevicesAllowed: rt.AllDevicesAllowed,
		}
		if profile != nil {
			h.Seccomp = builder.NewDefaultSeccomp(profile)
		}
		settings[name] = h
	}
	return settings, nil
}

// readBaseSpec reads the OCI config from which the configs of containers start. It returns nil if
// path is empty.
func readBaseSpec(path string, builder *oci.Builder) (*basespec.Base, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	base, err := basespec.Parse(b)
	if err == nil {
		err = builder.CheckBase(base)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return base, nil
}

package oci

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/criserver/criserver/oci/basespec"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CheckBase returns an error if a base config has a capability that does not exist, or a limit
// of the unified hierarchy that this host cannot set.
func (b *Builder) CheckBase(base *basespec.Base) error {
	for _, name := range base.Capabilities {
		if !isCapability(NormalizeCapability(name)) {
			return invalid("process.capabilities.bounding: %q is not a capability", name)
		}
	}
	if len(base.Unified) == 0 {
		return nil
	}
	return b.CheckResources("linux.resources", &cri.LinuxContainerResources{Unified: base.Unified})
}

// defaultCapabilities returns the capabilities of a container that requests none.
func (c *specBuilder) defaultCapabilities() ([]string, error) {
	if c.in.Base.Capabilities == nil {
		return slices.Clone(c.defaults.Capabilities), nil
	}
	caps, err := normalizeCapabilities("bounding", c.in.Base.Capabilities)
	if err != nil {
		return nil, fmt.Errorf("base spec of the runtime handler: %w", err)
	}
	return caps, nil
}

// rlimits returns the operator's limits. Limits of the base config replace limits of the same type.
func (c *specBuilder) rlimits() []specs.POSIXRlimit {
	base := c.in.Base.Rlimits
	if len(base) == 0 {
		return c.defaults.Rlimits
	}
	limits := slices.DeleteFunc(slices.Clone(c.defaults.Rlimits), func(r specs.POSIXRlimit) bool {
		return slices.ContainsFunc(base, func(b specs.POSIXRlimit) bool { return b.Type == r.Type })
	})
	fit, warnings := c.host.FitRlimits(base)
	c.warnings = append(c.warnings, warnings...)
	return append(limits, fit...)
}

// baseMounts returns the mounts of the base config.
func (c *specBuilder) baseMounts() []specs.Mount {
	for _, m := range c.in.Base.Mounts {
		if slices.ContainsFunc(m.Options, isRecursiveOption) {
			c.atLeast(versionRecursiveMounts)
		}
	}
	return c.in.Base.Mounts
}

// baseHasMount reports whether the base config mounts something at a path.
func (c *specBuilder) baseHasMount(path string) bool {
	return slices.ContainsFunc(c.in.Base.Mounts, func(m specs.Mount) bool { return filepath.Clean(m.Destination) == path })
}

// isRecursiveOption reports whether a mount option sets an attribute of all submounts.
func isRecursiveOption(option string) bool {
	return slices.Contains([]string{
		"rro", "rrw", "rnosuid", "rsuid", "rnodev", "rdev", "rnoexec", "rexec", "rnodiratime", "rdiratime", "rnoatime", "ratime",
		"rrelatime", "rnorelatime", "rstrictatime", "rnostrictatime", "rnosymfollow", "rsymfollow",
	}, option)
}

// baseResources adds the limits of the base config. Limits of the request take precedence.
func (c *specBuilder) baseResources(res *specs.LinuxResources) {
	if limit := c.in.Base.PidsLimit; limit != nil {
		res.Pids = &specs.LinuxPids{Limit: limit}
	}
	if len(c.in.Base.Unified) > 0 {
		res.Unified = mergeMaps(c.in.Base.Unified, res.Unified)
	}
}

// mergeMaps returns a new map with the values of all maps, or nil if there are none. Later maps
// take precedence.
func mergeMaps(from ...map[string]string) map[string]string {
	var out map[string]string
	for _, m := range from {
		if out == nil && len(m) > 0 {
			out = make(map[string]string, len(m))
		}
		maps.Copy(out, m)
	}
	return out
}

// cloneHooks returns a copy to which hooks can be appended.
func cloneHooks(h *specs.Hooks) *specs.Hooks {
	if h == nil {
		return nil
	}
	return &specs.Hooks{
		Prestart:        slices.Clone(h.Prestart), //nolint:staticcheck // prestart is deprecated, not invalid
		CreateRuntime:   slices.Clone(h.CreateRuntime),
		CreateContainer: slices.Clone(h.CreateContainer),
		StartContainer:  slices.Clone(h.StartContainer),
		Poststart:       slices.Clone(h.Poststart),
		Poststop:        slices.Clone(h.Poststop),
	}
}

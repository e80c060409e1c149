package basespec

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// check returns an error if a field has a value that no runtime accepts.
func (b *Base) check() error {
	for i, kv := range b.Env {
		if name, _, found := strings.Cut(kv, "="); !found || name == "" || strings.ContainsRune(kv, 0) {
			return fmt.Errorf("process.env[%d]: must be of the form NAME=VALUE, is %q", i, kv)
		}
	}
	for i, r := range b.Rlimits {
		if !strings.HasPrefix(r.Type, "RLIMIT_") || r.Soft > r.Hard {
			return fmt.Errorf("process.rlimits[%d]: must have a type as in RLIMIT_NOFILE, and a soft limit that is not above the hard limit", i)
		}
	}
	for i, m := range b.Mounts {
		field := fmt.Sprintf("mounts[%d]", i)
		switch bind := m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind"); {
		case !filepath.IsAbs(m.Destination) || slices.Contains(strings.Split(m.Destination, "/"), "..") || filepath.Clean(m.Destination) == "/":
			return fmt.Errorf("%s.destination: must be an absolute path below /, without .., is %q", field, m.Destination)
		case bind && !filepath.IsAbs(m.Source):
			return fmt.Errorf("%s.source: must be an absolute path for a bind mount, is %q", field, m.Source)
		case len(m.UIDMappings)+len(m.GIDMappings) > 0:
			return fmt.Errorf("%s.uidMappings: is not supported in a base spec", field)
		}
	}
	for i, d := range b.Devices {
		if !filepath.IsAbs(d.Path) || !slices.Contains([]string{"c", "b", "u", "p"}, d.Type) {
			return fmt.Errorf("linux.devices[%d]: must have an absolute path and the type c, b, u or p", i)
		}
	}
	for i, r := range b.DeviceRules {
		if strings.Trim(r.Access, "rwm") != "" || r.Access == "" || !slices.Contains([]string{"", "a", "b", "c"}, r.Type) {
			return fmt.Errorf("linux.resources.devices[%d]: must have an access made of r, w and m, and the type a, b or c", i)
		}
	}
	return b.checkHooks()
}

// checkHooks checks the paths of hooks, which are paths on the host except for startContainer.
func (b *Base) checkHooks() error {
	if b.Hooks == nil {
		return nil
	}
	h := b.Hooks
	for _, list := range [][]specs.Hook{
		h.Prestart, h.CreateRuntime, h.CreateContainer, h.StartContainer, h.Poststart, h.Poststop, //nolint:staticcheck // prestart is deprecated, not invalid
	} {
		for _, hook := range list {
			if !filepath.IsAbs(hook.Path) {
				return fmt.Errorf("hooks: the path of a hook must be absolute, is %q", hook.Path)
			}
		}
	}
	return nil
}

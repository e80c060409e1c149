package oci

import (
	"slices"

	"github.com/criserver/criserver/internal/rootpath"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CheckSecurityContext returns an error if a security context names an unknown
// capability, or a masked or read-only path that is not absolute and clean. It does not
// look at the host. Build applies the same rules.
func CheckSecurityContext(sc *cri.LinuxContainerSecurityContext) error {
	caps := sc.GetCapabilities()
	for _, f := range []struct {
		name  string
		names []string
	}{
		{"add_capabilities", caps.GetAddCapabilities()},
		{"drop_capabilities", caps.GetDropCapabilities()},
		{"add_ambient_capabilities", caps.GetAddAmbientCapabilities()},
	} {
		if f.name == "add_capabilities" && sc.GetPrivileged() {
			continue // a privileged container has all capabilities
		}
		if _, err := normalizeCapabilities(f.name, f.names); err != nil {
			return err
		}
	}
	if sc.GetPrivileged() {
		return nil // nothing is hidden from a privileged container
	}
	return checkHiddenPaths(sc)
}

func checkHiddenPaths(sc *cri.LinuxContainerSecurityContext) error {
	for _, f := range []struct {
		name  string
		paths []string
	}{{"masked_paths", sc.GetMaskedPaths()}, {"readonly_paths", sc.GetReadonlyPaths()}} {
		if i := slices.IndexFunc(f.paths, func(p string) bool { return !cleanAbsolute(p) }); i >= 0 {
			return invalid("linux.security_context.%s[%d] %q must be an absolute path without \"..\"", f.name, i, f.paths[i])
		}
		if i := slices.IndexFunc(f.paths, rootpath.TooLong); i >= 0 {
			return invalid("linux.security_context.%s[%d] %s", f.name, i, rootpath.LengthRule)
		}
	}
	return nil
}

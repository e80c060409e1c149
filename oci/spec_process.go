package oci

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// process sets the command, the environment, the user and the limits of the first process.
func (c *specBuilder) process() error {
	in := c.in
	if len(in.Args) == 0 {
		return invalid("no command: neither the request nor the image has one")
	}
	for i, s := range in.Args {
		if strings.ContainsRune(s, 0) {
			return invalid("command and args: element %d contains a NUL", i)
		}
	}
	if i := slices.IndexFunc(in.Env, func(s string) bool { return !utf8.ValidString(s) }); i >= 0 {
		// JSON would silently replace the bytes.
		name, _, _ := strings.Cut(in.Env[i], "=")
		return invalid("env %q: the value is not UTF-8, which an OCI config cannot carry", name)
	}
	if !cleanAbsolute(in.Cwd) {
		return invalid("working directory %q must be an absolute path without \"..\"", in.Cwd)
	}
	c.spec.Process = &specs.Process{
		Terminal:        in.Terminal,
		User:            in.User,
		Args:            in.Args,
		Env:             in.Env,
		Cwd:             in.Cwd,
		NoNewPrivileges: in.Security.GetNoNewPrivs(),
		OOMScoreAdj:     c.oomScoreAdj(),
		Rlimits:         c.rlimits(),
		Scheduler:       in.Base.Scheduler,
		IOPriority:      in.Base.IOPriority,
	}
	if in.Base.Scheduler != nil || in.Base.IOPriority != nil {
		c.atLeast(versionRecursiveMounts) // the same version has these fields
	}
	return nil
}

// oomScoreAdj returns a value even if the request has none. Otherwise the container would
// inherit the value of the daemon, which the kernel spares when memory is short.
func (c *specBuilder) oomScoreAdj() *int {
	adj, warning := c.OOMScoreAdj(c.in.Resources.GetOomScoreAdj())
	if warning != "" && c.in.Resources != nil {
		c.warnings = append(c.warnings, warning)
	}
	return &adj
}

// DefaultCapabilities returns the capabilities of a container that requests none. They allow
// changing users and file owners, binding low ports and sending signals, and nothing outside of
// the container. NET_RAW, MKNOD, SYS_CHROOT and AUDIT_WRITE are not included.
func DefaultCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
		"CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID",
	}
}

const allCapabilities = "CAP_ALL"

// NormalizeCapability converts "net_admin" and "CAP_NET_ADMIN" to "CAP_NET_ADMIN".
func NormalizeCapability(name string) string {
	name = strings.ToUpper(name)
	if !strings.HasPrefix(name, "CAP_") {
		name = "CAP_" + name
	}
	return name
}

func capabilityName(c capability.Cap) string { return "CAP_" + strings.ToUpper(c.String()) }

func isCapability(name string) bool {
	return slices.ContainsFunc(capability.ListKnown(), func(c capability.Cap) bool { return capabilityName(c) == name })
}

// capabilities sets the capability sets. The inheritable set stays empty, because files with
// inheritable capabilities would give them to any user in the container (CVE-2022-27652).
func (c *specBuilder) capabilities() error {
	want, err := c.requestedCapabilities()
	if err != nil {
		return err
	}
	ambient, err := normalizeCapabilities("add_ambient_capabilities", c.in.Security.GetCapabilities().GetAddAmbientCapabilities())
	if err != nil {
		return err
	}
	if slices.Contains(ambient, allCapabilities) {
		ambient = want
	}
	// As with add_capabilities, capabilities that are dropped by name stay dropped.
	drop, err := normalizeCapabilities("drop_capabilities", c.in.Security.GetCapabilities().GetDropCapabilities())
	if err != nil {
		return err
	}
	for _, a := range ambient {
		switch {
		case slices.Contains(want, a) || slices.Contains(drop, a):
		case slices.Contains(c.host.Capabilities, a):
			want = append(want, a)
		default:
			c.warn("capability %s cannot be ambient: the daemon does not have it itself", a)
		}
	}
	slices.Sort(want)
	ambient = intersect(ambient, want)
	if len(ambient) > 0 {
		// The kernel requires ambient capabilities to be inheritable.
		c.spec.Process.Capabilities = &specs.LinuxCapabilities{
			Bounding: want, Effective: want, Permitted: want, Inheritable: ambient, Ambient: ambient,
		}
		return nil
	}
	c.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: want, Effective: want, Permitted: want}
	return nil
}

// requestedCapabilities returns the default capabilities with the changes of the request, or all capabilities of the
// daemon for a privileged container.
func (c *specBuilder) requestedCapabilities() ([]string, error) {
	if c.privileged() {
		return slices.Clone(c.host.Capabilities), nil
	}
	req := c.in.Security.GetCapabilities()
	add, err := normalizeCapabilities("add_capabilities", req.GetAddCapabilities())
	if err != nil {
		return nil, err
	}
	drop, err := normalizeCapabilities("drop_capabilities", req.GetDropCapabilities())
	if err != nil {
		return nil, err
	}
	want, err := c.defaultCapabilities()
	if err != nil {
		return nil, err
	}
	if slices.Contains(drop, allCapabilities) {
		want = nil
	}
	if slices.Contains(add, allCapabilities) {
		want = slices.Clone(c.host.Capabilities)
	}
	for _, a := range add {
		if a == allCapabilities || slices.Contains(want, a) {
			continue
		}
		if !slices.Contains(c.host.Capabilities, a) {
			c.warn("capability %s cannot be added: the daemon does not have it itself", a)
			continue
		}
		want = append(want, a)
	}
	want = slices.DeleteFunc(want, func(s string) bool { return slices.Contains(drop, s) })
	return intersect(want, c.host.Capabilities), nil
}

func normalizeCapabilities(field string, names []string) ([]string, error) {
	out := make([]string, 0, len(names))
	for _, n := range names {
		name := NormalizeCapability(n)
		if name != allCapabilities && !isCapability(name) {
			return nil, invalid("linux.security_context.capabilities.%s: %q is not a capability", field, n)
		}
		out = append(out, name)
	}
	return out, nil
}

func intersect(a, b []string) []string {
	out := make([]string, 0, len(a))
	for _, s := range a {
		if slices.Contains(b, s) && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

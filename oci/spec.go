package oci

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/criserver/criserver/internal/userns"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The versions written into a config: a runtime refuses one that it does not
// know, so it is the lowest that has all the fields used.
const (
	versionBase            = "1.0.2"
	versionRecursiveMounts = "1.1.0" // recursive mount attributes ("rro") and mount mappings
	versionIDMap           = "1.2.0" // mappings of submounts ("ridmap")
)

// Input is all that a config is made from. Whatever had to be looked up on the
// machine or in the image has been.
type Input struct {
	Args, Env []string
	Cwd       string
	User      specs.User
	Terminal  bool
	RootFS    string

	Security  *cri.LinuxContainerSecurityContext // nil: all defaults
	Resources *cri.LinuxContainerResources       // nil: no limits
	// SeccompProfile is the content of the file when Security names a profile
	// of the node.
	SeccompProfile []byte
	// ProcessLabel and MountLabel are SELinux labels, or "".
	ProcessLabel, MountLabel string

	Namespaces Namespaces
	// UserGIDs are the groups that Namespaces.User has.
	UserGIDs []userns.Mapping
	Files    Files
	// Volumes are directories of the root file system that stay writable when
	// it is not: see writableVolumes in package container.
	Volumes     []Mount
	Mounts      []Mount
	Devices     []Device
	CgroupsPath string
	// BlockIO and RDT are what a class stands for; nil for none.
	BlockIO *specs.LinuxBlockIO
	RDT     *specs.LinuxIntelRdt
	// Annotations are handed to the runtime as they are: see AllowAnnotations.
	Annotations map[string]string
}

// Namespaces are paths of namespaces to join; "" is the host's.
type Namespaces struct {
	Net, IPC, UTS, PID, User string
	NewPID                   bool // a PID namespace of its own; PID is "" then
}

// Files are host files bind mounted to their usual places, unless the request
// mounts something there itself. Shm "" is the host's /dev/shm.
type Files struct {
	Hosts, Hostname, ResolvConf, Shm string
}

// Result is a config and what the user should be told about it.
type Result struct {
	Spec *specs.Spec
	// Warnings say where the machine allows less than was asked for.
	Warnings []string
}

// Defaults are what the operator configures for every container.
type Defaults struct {
	// Capabilities a container has without asking, with CAP_ or without; nil for
	// DefaultCapabilities.
	Capabilities []string
	// Rlimits are lowered to what Host.FitRlimits returns.
	Rlimits   []specs.POSIXRlimit
	PidsLimit int64 // 0 or less for none
	// AppArmorProfile is the name of the profile that "RuntimeDefault" means;
	// "" for none.
	AppArmorProfile string
	Seccomp         SeccompDefaults
}

// Builder makes configs for one machine. It is safe for concurrent use.
type Builder struct {
	host     Host
	defaults Defaults
	seccomp  seccompCache
}

// NewBuilder returns a Builder for the host.
func NewBuilder(host Host, defaults Defaults) *Builder {
	if defaults.Capabilities == nil {
		defaults.Capabilities = DefaultCapabilities()
	}
	caps := make([]string, len(defaults.Capabilities))
	for i, c := range defaults.Capabilities {
		caps[i] = NormalizeCapability(c)
	}
	defaults.Capabilities = caps
	defaults.Rlimits, _ = host.FitRlimits(defaults.Rlimits)
	return &Builder{host: host, defaults: defaults, seccomp: seccompCache{x32: host.X32, profile: defaults.Seccomp.Profile}}
}

// build is one config in the making.
type specBuilder struct {
	*Builder
	in       Input
	spec     *specs.Spec
	warnings []string
}

// Build makes a config. Its errors are ErrInvalidArgument where the request
// breaks a rule and ErrFailedPrecondition where the machine lacks what it
// insists on.
func (b *Builder) Build(in Input) (*Result, error) {
	c := &specBuilder{Builder: b, in: in, spec: &specs.Spec{
		Version:     versionBase,
		Root:        &specs.Root{Path: in.RootFS, Readonly: in.Security.GetReadonlyRootfs()},
		Annotations: maps.Clone(in.Annotations),
		Linux:       &specs.Linux{CgroupsPath: in.CgroupsPath},
	}}
	for _, step := range []func() error{
		c.process, c.capabilities, c.namespaces, c.mounts, c.paths, c.devices, c.resources, c.securityLabels, c.seccompFilter,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return &Result{Spec: c.spec, Warnings: c.warnings}, nil
}

// Encode renders a config as JSON.
func Encode(s *specs.Spec) ([]byte, error) { return json.Marshal(s) }

func (c *specBuilder) warn(format string, args ...any) {
	c.warnings = append(c.warnings, fmt.Sprintf(format, args...))
}

// atLeast raises the version: versions are in their order as strings, too.
func (c *specBuilder) atLeast(version string) { c.spec.Version = max(c.spec.Version, version) }

func (c *specBuilder) privileged() bool { return c.in.Security.GetPrivileged() }

// namespaces: a container joins its pod's, and has mounts of its own. A cgroup
// namespace hides the host's tree where the tree is unified.
func (c *specBuilder) namespaces() error {
	l, ns := c.spec.Linux, c.in.Namespaces
	l.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	for _, n := range []specs.LinuxNamespace{
		{Type: specs.NetworkNamespace, Path: ns.Net},
		{Type: specs.IPCNamespace, Path: ns.IPC},
		{Type: specs.UTSNamespace, Path: ns.UTS},
		{Type: specs.PIDNamespace, Path: ns.PID},
		{Type: specs.UserNamespace, Path: ns.User},
	} {
		if n.Path != "" {
			l.Namespaces = append(l.Namespaces, n)
		}
	}
	if ns.NewPID {
		l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.PIDNamespace})
	}
	if c.host.CgroupV2 && !c.privileged() {
		l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return nil
}

// DefaultMaskedPaths are hidden from a container whose request has no security
// context: kernel interfaces that tell of or act on the whole machine.
func DefaultMaskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
		"/sys/firmware",
	}
}

// DefaultReadonlyPaths go with DefaultMaskedPaths.
func DefaultReadonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// paths takes the request's lists as they are: an empty list in a security
// context means "none" (the CRI has them passed straight on), and privileged
// containers see everything.
func (c *specBuilder) paths() error {
	sc, l := c.in.Security, c.spec.Linux
	switch {
	case sc == nil:
		l.MaskedPaths, l.ReadonlyPaths = DefaultMaskedPaths(), DefaultReadonlyPaths()
		return nil
	case sc.GetPrivileged():
		return nil
	}
	if err := checkHiddenPaths(sc); err != nil {
		return err
	}
	l.MaskedPaths, l.ReadonlyPaths = sc.GetMaskedPaths(), sc.GetReadonlyPaths()
	return nil
}

// cleanAbsolute accepts a trailing slash, as people write it for directories.
func cleanAbsolute(p string) bool {
	return filepath.IsAbs(p) && !strings.ContainsRune(p, 0) && !slices.Contains(strings.Split(p, "/"), "..")
}

// AllowAnnotations returns those of the maps' entries whose key is allowed: is
// named, or begins with what stands before a final "*", the later map winning. Keys that runtimes take for systemd
// properties of the unit never pass: they would be set on the host's systemd.
func AllowAnnotations(allowed []string, from ...map[string]string) map[string]string {
	var out map[string]string
	for _, m := range from {
		for k, v := range m {
			named := slices.ContainsFunc(allowed, func(a string) bool {
				prefix, open := strings.CutSuffix(a, "*")
				return a == k || open && strings.HasPrefix(k, prefix)
			})
			if !named || strings.HasPrefix(k, "org.systemd.property.") {
				continue
			}
			if out == nil {
				out = make(map[string]string)
			}
			out[k] = v
		}
	}
	return out
}

package oci

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/criserver/criserver/internal/userns"
	"github.com/criserver/criserver/oci/basespec"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Versions of a config. A runtime refuses an unknown version, so Build uses the lowest version
// that has all used fields.
const (
	versionBase            = "1.0.2"
	versionRecursiveMounts = "1.1.0" // recursive mount attributes ("rro") and mount mappings
	versionIDMap           = "1.2.0" // mappings of submounts ("ridmap")
)

// Input contains everything that a config is made from. The caller has already read what is
// needed from the host and from the image.
type Input struct {
	Args, Env []string
	Cwd       string
	User      specs.User
	Terminal  bool
	RootFS    string

	Security  *cri.LinuxContainerSecurityContext // nil: all defaults
	Resources *cri.LinuxContainerResources       // nil: no limits
	// SeccompProfile is the content of the profile if Security names a profile of the node.
	SeccompProfile []byte
	// DefaultSeccomp is the seccomp profile of the runtime handler for containers that request RuntimeDefault. If
	// DefaultSeccomp is nil, these containers get the profile of the Builder.
	DefaultSeccomp *DefaultSeccomp
	// ProcessLabel and MountLabel are SELinux labels, or "".
	ProcessLabel, MountLabel string

	Namespaces Namespaces
	// UserGIDs are the group mappings of Namespaces.User.
	UserGIDs []userns.Mapping
	Files    Files
	// Volumes are directories of the root file system that stay writable if the root file
	// system is read-only: see writableVolumes in package container.
	Volumes     []Mount
	Mounts      []Mount
	Devices     []Device
	CgroupsPath string
	// BlockIO and RDT are the parameters of the container's classes; nil for none.
	BlockIO *specs.LinuxBlockIO
	RDT     *specs.LinuxIntelRdt
	// Annotations are passed to the runtime: see AllowAnnotations.
	Annotations map[string]string

	// Base has the values of the runtime handler from which the config starts, except for the
	// environment, which Env contains. nil stands for an empty Base.
	Base *basespec.Base
	// WritableCgroups makes /sys/fs/cgroup writable in a container on cgroup v2.
	WritableCgroups bool
	// OnlyOwnDevices restricts a privileged container to the devices that it has, as other
	// containers.
	OnlyOwnDevices bool
}

// Namespaces contains the paths of namespaces to join. "" means the host's namespace.
type Namespaces struct {
	Net, IPC, UTS, PID, User string
	NewPID                   bool // the container gets a new PID namespace, and PID is ""
}

// Files are host files that are bind mounted to their usual paths, unless the request mounts
// something there. With "" for Shm, the container gets the host's /dev/shm.
type Files struct {
	Hosts, Hostname, ResolvConf, Shm string
	// Localtime is mounted read-only, unless Base mounts something at /etc/localtime.
	Localtime string
}

// Result is a config with warnings for the user.
type Result struct {
	Spec *specs.Spec
	// Warnings describe requested values that the host does not support.
	Warnings []string
}

// Defaults are the operator's settings for every container.
type Defaults struct {
	// Capabilities are the capabilities of a container that requests none, with or without
	// CAP_; nil for DefaultCapabilities.
	Capabilities []string
	// Rlimits are lowered to the result of Host.FitRlimits.
	Rlimits   []specs.POSIXRlimit
	PidsLimit int64 // 0 or less for none
	// AppArmorProfile is the name of the profile for "RuntimeDefault", or "" for none.
	AppArmorProfile string
	Seccomp         SeccompDefaults
}

// Builder builds configs for one host. It is safe for concurrent use.
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

// specBuilder is the state of one Build.
type specBuilder struct {
	*Builder
	in       Input
	spec     *specs.Spec
	warnings []string
}

// Build builds a config. It returns ErrInvalidArgument if the request breaks a rule, and
// ErrFailedPrecondition if the host does not have what the request requires.
func (b *Builder) Build(in Input) (*Result, error) {
	if in.Base == nil {
		in.Base = new(basespec.Base)
	}
	c := &specBuilder{Builder: b, in: in, spec: &specs.Spec{
		Version:     versionBase,
		Root:        &specs.Root{Path: in.RootFS, Readonly: in.Security.GetReadonlyRootfs()},
		Annotations: mergeMaps(in.Base.Annotations, in.Annotations),
		Hooks:       cloneHooks(in.Base.Hooks),
		Linux:       &specs.Linux{CgroupsPath: in.CgroupsPath, Personality: in.Base.Personality},
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

// Encode returns a config as JSON.
func Encode(s *specs.Spec) ([]byte, error) { return json.Marshal(s) }

func (c *specBuilder) warn(format string, args ...any) {
	c.warnings = append(c.warnings, fmt.Sprintf(format, args...))
}

// atLeast raises the version of the config. Versions are compared as strings, which gives the
// right order for them.
func (c *specBuilder) atLeast(version string) { c.spec.Version = max(c.spec.Version, version) }

func (c *specBuilder) privileged() bool { return c.in.Security.GetPrivileged() }

// namespaces adds the namespaces of the pod and a new mount namespace. On cgroup v2, a cgroup
// namespace hides the host's cgroups.
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

// DefaultMaskedPaths returns the paths that are hidden from a container whose request has no
// security context: kernel interfaces that show or affect the whole host.
func DefaultMaskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
		"/sys/firmware",
	}
}

// DefaultReadonlyPaths returns the paths that are read-only for the same containers.
func DefaultReadonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// paths sets the masked and read-only paths of the request. The CRI passes the lists to the
// runtime: an empty list in a security context means "none". Privileged containers see
// everything.
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

// AllowAnnotations returns the annotations whose keys are allowed: an allowed key is named
// exactly, or by a prefix that ends in "*". Values of later maps take precedence. Annotations
// that runtimes convert to systemd properties are never allowed, because they would change
// units of the host's systemd.
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

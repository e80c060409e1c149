package sandbox

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/criserver/criserver/sandbox/network"
	"github.com/criserver/criserver/sandbox/podspec"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Containers stops and removes the containers of pods.
type Containers interface {
	// StopPod stops all containers of a pod by force. It returns when all of them have exited.
	StopPod(ctx context.Context, podID string) error
	// RemovePod removes all containers of a pod.
	RemovePod(ctx context.Context, podID string) error
}

// Config configures a Manager. The zero values of optional fields stand for the documented defaults.
type Config struct {
	// RunDir must be on a file system that is empty after a reboot. The Manager owns its subdirectories pods, ns and cni.
	RunDir string
	CNI    network.Config

	Containers Containers
	Cgroups    Cgroups
	// Units is required with the systemd driver.
	Units Units
	// Plugins is nil if there are no NRI plugins.
	Plugins Plugins
	// HasGuests reports whether the runtime of a handler runs pods under their own kernels (docs/adr/0007). If HasGuests
	// is nil, no runtime does.
	HasGuests func(handler string) bool
	// KnownHandler reports whether a runtime handler exists. HandlerNames lists the handlers for error messages.
	KnownHandler func(name string) bool
	HandlerNames func() []string

	// CheckResources returns an error that names the field if its limits break a rule. If CheckResources is nil, all
	// limits are valid.
	CheckResources func(field string, r *cri.LinuxContainerResources) error
	// UserNamespaces returns the reason why pods of a runtime handler cannot have a user namespace, or nil if they can. If
	// UserNamespaces is nil, no pod can have one.
	UserNamespaces func(handler string) error
	// HostNetworkUserNamespaces is like UserNamespaces, for pods with the network of the host.
	HostNetworkUserNamespaces func(handler string) error
	// CheckSecurity returns an error if the node cannot confine a pod as the security context requires. If CheckSecurity
	// is nil, the node can.
	CheckSecurity func(*cri.LinuxSandboxSecurityContext) error
	// Labels is nil if SELinux is not enabled.
	Labels Labels

	// CgroupDriver is Cgroupfs by default.
	CgroupDriver CgroupDriver
	// CgroupParent is the parent of the cgroups of pods that request no parent: "/criserver" by default,
	// "criserver.slice" with the systemd driver.
	CgroupParent string
	// AllowedSysctls are names of sysctls, or prefixes that end in "*". A nil list stands for DefaultSysctls; an empty
	// list that is not nil allows no sysctl.
	AllowedSysctls []string
	// DefaultSysctls are the values of sysctls, by name, of pods that do not request another value.
	DefaultSysctls map[string]string
	// PausePath is the path of a static binary that runs as the pause if its argv[0] is "pause". Without PausePath, pods
	// can have neither a shared PID namespace nor a user namespace.
	PausePath string
	// NetNSDir is the directory with the names of the network namespaces of new pods. If NetNSDir is "", the namespaces
	// have no names.
	NetNSDir string
	// NoHostPorts is true if the host ports of new pods are not mapped. Requests with host ports are accepted.
	NoHostPorts bool
	// ShmSize is the size of a pod's /dev/shm in bytes, 64 MiB by default.
	ShmSize int64
	// SetupTimeout bounds the creation of a pod. TeardownTimeout bounds one attempt to tear down a pod, without the stop
	// of its containers. Both are 2 minutes by default.
	SetupTimeout, TeardownTimeout time.Duration
	// Linger is the time for which the creation of a pod continues after its last caller has left, so that a retry can
	// join the creation. It is 4 minutes by default.
	Linger time.Duration
}

// DefaultSysctls are the sysctls that the namespaces of a pod confine.
var DefaultSysctls = []string{"kernel.shm*", "kernel.msg*", "kernel.sem", "fs.mqueue.*", "net.*"}

func (c Config) withDefaults() Config {
	setDefault(&c.CgroupDriver, Cgroupfs)
	if c.CgroupDriver == Systemd {
		setDefault(&c.CgroupParent, "criserver.slice")
	}
	setDefault(&c.CgroupParent, "/criserver")
	setDefault(&c.ShmSize, 64<<20)
	setDefault(&c.SetupTimeout, 2*time.Minute)
	setDefault(&c.TeardownTimeout, 2*time.Minute)
	setDefault(&c.Linger, 4*time.Minute)
	setDefault(&c.CNI.CacheDir, filepath.Join(c.RunDir, "cni"))
	if c.AllowedSysctls == nil {
		c.AllowedSysctls = DefaultSysctls
	}
	if c.HasGuests == nil {
		c.HasGuests = func(string) bool { return false }
	}
	if c.KnownHandler == nil {
		c.KnownHandler = func(name string) bool { return name == "" }
	}
	if c.HandlerNames == nil {
		c.HandlerNames = func() []string { return nil }
	}
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// node returns what the node and the configuration allow in requests.
func (c Config) node() podspec.Node {
	return podspec.Node{
		KnownHandler:   c.KnownHandler,
		HandlerNames:   c.HandlerNames,
		Pause:          c.PausePath != "",
		UserNamespaces: c.UserNamespaces,

		HostNetworkUserNamespaces: c.HostNetworkUserNamespaces,

		CgroupDriver:       c.CgroupDriver,
		CheckSecurity:      c.CheckSecurity,
		CheckResources:     c.CheckResources,
		AllowedSysctls:     c.AllowedSysctls,
		DefaultSysctls:     c.DefaultSysctls,
		AdditionalNetworks: c.CNI.Additional,
	}
}

func (c Config) check() error {
	switch {
	case !filepath.IsAbs(c.RunDir):
		return fmt.Errorf("run directory %q must be absolute", c.RunDir)
	case c.NetNSDir != "" && !filepath.IsAbs(c.NetNSDir):
		return fmt.Errorf("directory of network namespaces %q must be absolute", c.NetNSDir)
	case c.Containers == nil || c.Cgroups == nil:
		return errors.New("containers and cgroups must be set")
	case c.CgroupDriver == Systemd && c.Units == nil:
		return errors.New("units must be set with the systemd driver")
	case c.CgroupDriver != Cgroupfs && c.CgroupDriver != Systemd:
		return fmt.Errorf("cgroup driver %q must be %q or %q", c.CgroupDriver, Cgroupfs, Systemd)
	}
	_, err := podspec.ParseCgroupParent(c.CgroupDriver, c.CgroupParent)
	return err
}

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

// Config is what a Manager is made of. Zero values of the optional fields stand
// for the defaults that are named.
type Config struct {
	// RunDir is on a file system that a reboot empties. The Manager owns its
	// subdirectories pods, ns and cni.
	RunDir string
	CNI    network.Config

	Containers Containers
	Cgroups    Cgroups
	// Units must be given with the systemd driver.
	Units Units
	// Plugins have a say in pods; nil where there are none.
	Plugins Plugins
	// HasGuests says whether a handler's runtime runs pods under kernels of their
	// own; nil for none.
	HasGuests func(handler string) bool
	// KnownHandler says whether there is a runtime handler of this name, and
	// HandlerNames which there are, for the error.
	KnownHandler func(name string) bool
	HandlerNames func() []string

	// CheckResources says which rule limits break that stand in the field of the
	// request. Nil accepts all.
	CheckResources func(field string, r *cri.LinuxContainerResources) error
	// UserNamespaces says why pods of a handler cannot have a user namespace of
	// their own, or nil when they can. Without it none can.
	UserNamespaces func(handler string) error
	// CheckSecurity says what of a pod's confinement this machine cannot give;
	// nil for nothing.
	CheckSecurity func(*cri.LinuxSandboxSecurityContext) error
	// Labels are nil where the machine has no SELinux.
	Labels Labels

	// CgroupDriver is Cgroupfs by default.
	CgroupDriver CgroupDriver
	// CgroupParent is below where pods are put that ask for no parent:
	// "/criserver" by default, "criserver.slice" with the systemd driver.
	CgroupParent string
	// AllowedSysctls are names or prefixes ending in "*"; DefaultSysctls when
	// nil. An empty list that is not nil allows none.
	AllowedSysctls []string
	// PausePath is the static binary that serves as pause when its argv[0] is
	// "pause". Without it pods can neither share a PID namespace nor have a user
	// namespace.
	PausePath string
	// ShmSize is the size of a pod's /dev/shm in bytes, 64 MiB by default.
	ShmSize int64
	// SetupTimeout bounds the making of a pod and TeardownTimeout one try to take
	// it down, without its containers; 2 min each by default.
	SetupTimeout, TeardownTimeout time.Duration
	// Linger is how long the making of a pod goes on when nobody waits for it any
	// more, so that a retry finds it; 4 min by default.
	Linger time.Duration
}

// DefaultSysctls are those that the pod's own namespaces confine.
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
		CgroupDriver:   c.CgroupDriver,
		CheckSecurity:  c.CheckSecurity,
		CheckResources: c.CheckResources,
		AllowedSysctls: c.AllowedSysctls,

		AdditionalNetworks: c.CNI.Additional,
	}
}

func (c Config) check() error {
	switch {
	case !filepath.IsAbs(c.RunDir):
		return fmt.Errorf("run directory %q must be absolute", c.RunDir)
	case c.Containers == nil || c.Cgroups == nil:
		return errors.New("containers and cgroups must be given")
	case c.CgroupDriver == Systemd && c.Units == nil:
		return errors.New("units must be given with the systemd driver")
	case c.CgroupDriver != Cgroupfs && c.CgroupDriver != Systemd:
		return fmt.Errorf("cgroup driver %q must be %q or %q", c.CgroupDriver, Cgroupfs, Systemd)
	}
	_, err := podspec.ParseCgroupParent(c.CgroupDriver, c.CgroupParent)
	return err
}

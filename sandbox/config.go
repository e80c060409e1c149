package sandbox

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/criserver/criserver/sandbox/podspec"
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

	Containers Containers
	Cgroups    Cgroups
	// Units is required with the systemd driver.
	Units Units
	// Plugins is nil if there are no NRI plugins.
	Plugins Plugins
	// Labels is nil if SELinux is not enabled.
	Labels Labels

	CgroupDriver CgroupDriver
	// CgroupParent is the parent of the cgroups of pods that request no parent, in the notation of the cgroup driver.
	CgroupParent string
	// PausePath is the path of a static binary that runs as the pause if its argv[0] is "pause". Without PausePath, pods
	// can have neither a shared PID namespace nor a user namespace.
	PausePath string
	// NetNSDir is the directory with the names of the network namespaces of new pods. If NetNSDir is "", the namespaces
	// have no names.
	NetNSDir string
	// SetupTimeout bounds the creation of a pod. TeardownTimeout bounds one attempt to tear down a pod, without the stop
	// of its containers. Both are 2 minutes by default.
	SetupTimeout, TeardownTimeout time.Duration
	// Linger is the time for which the creation of a pod continues after its last caller has left, so that a retry can
	// join the creation. It is 4 minutes by default.
	Linger time.Duration

	// Settings are the settings until the first Update.
	Settings
}

func (c Config) withDefaults() Config {
	setDefault(&c.SetupTimeout, 2*time.Minute)
	setDefault(&c.TeardownTimeout, 2*time.Minute)
	setDefault(&c.Linger, 4*time.Minute)
	c.Settings = c.Settings.withDefaults(c.RunDir)
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
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
	case c.ShmSize <= 0:
		return fmt.Errorf("size of /dev/shm must be greater than 0, is %d", c.ShmSize)
	}
	_, err := podspec.ParseCgroupParent(c.CgroupDriver, c.CgroupParent)
	return err
}

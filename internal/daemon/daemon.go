// Package daemon is the composition root: it inspects the host, builds all parts of the
// daemon, connects them, and starts and stops them in order. It is the only package that
// imports all others. It decides nothing about pods, containers or images: their packages
// do, and this package only translates between them.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/internal/daemon/servicemanager"
	"github.com/criserver/criserver/internal/flock"
)

// Config configures a Daemon.
type Config struct {
	Settings config.Config // the operator's configuration, as returned by config.Load
	Version  string        // the semantic version that the daemon reports to clients and plugins
	Commit   string        // the commit from which the daemon was built, "" if it is unknown
	// Load reads the operator's configuration again, for Reload. If Load is nil, a reload uses
	// Settings, and reads only the files that Settings names.
	Load func() (config.Config, error)
}

// Daemon is a CRI runtime service that has not been started.
type Daemon struct {
	cfg     Config
	serving chan struct{} // closed when the daemon accepts requests
	parts   *parts        // set before serving is closed
}

// New returns a daemon. New does nothing else: Run inspects the host and builds the parts.
func New(c Config) *Daemon {
	if c.Load == nil {
		c.Load = func() (config.Config, error) { return c.Settings, nil }
	}
	return &Daemon{cfg: c, serving: make(chan struct{})}
}

// Run serves the CRI until ctx ends or a part of the daemon fails. When Run returns, no
// goroutine of the daemon is left. Containers and their monitors continue to run.
//
// Run removes the variables of the service manager from the environment of the process,
// and Run may be called once.
func (d *Daemon) Run(ctx context.Context) error {
	startTime := time.Now()
	manager := servicemanager.Take()
	stopExtending := sync.OnceFunc(manager.ExtendStart(servicemanager.ExtendInterval))
	defer stopExtending()
	locks, err := lockDirs(d.cfg.Settings.Root, d.cfg.Settings.RunDir)
	if err != nil {
		return err
	}
	p, err := build(ctx, d.cfg)
	if err != nil {
		return errors.Join(err, locks.release())
	}
	p.started.begin, p.manager = startTime, manager
	stopWatchdog := func() {}
	err = p.run(ctx, phases{
		serving: func() {
			p.started.setServing()
			p.logServing(p.started.duration())
			stopExtending()
			manager.Notify(servicemanager.StateReady)
			p.reloads.allow()
			p.loadArchives()
			d.parts = p
			close(d.serving)
			stopWatchdog = manager.StartWatchdog(p.countProbes(servicemanager.ProbeServer(d.cfg.Settings.Socket)))
		},
		stopping: func() {
			stopWatchdog() // the server accepts no new requests
			manager.Notify(servicemanager.StateStopping)
		},
	})
	stopWatchdog()
	return errors.Join(err, locks.release())
}

// ErrInUse is the error of an operation that needs directories that a daemon uses.
var ErrInUse = errors.New("in use by another daemon")

// dirLocks holds the locks on the state directories. The kernel releases the locks when
// the process ends, also after a kill.
type dirLocks []*os.File

// lockDirs creates the state directories and locks them, so that no two daemons use the
// same directory.
func lockDirs(dirs ...string) (dirLocks, error) {
	var locks dirLocks
	for _, dir := range dirs {
		f, err := lockDir(dir)
		if err != nil {
			return nil, errors.Join(err, locks.release())
		}
		locks = append(locks, f)
	}
	return locks, nil
}

func lockDir(dir string) (*os.File, error) {
	// Other users may pass through the directory, because mounts below it belong to
	// containers of other users. They may not list it.
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	f, err := flock.TryOpen(filepath.Join(dir, "lock"))
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("%s is %w", dir, ErrInUse)
	}
	return f, err
}

func (l dirLocks) release() error {
	var errs []error
	for _, f := range l {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

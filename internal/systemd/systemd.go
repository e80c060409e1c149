// Package systemd asks systemd over D-Bus to start scopes, and to list and stop
// units. It must not decide which units belong to the daemon: that is for the
// caller.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// timeout bounds one request to systemd with the job that follows from it.
const timeout = 30 * time.Second

// noSuchUnit is the name of the error for a unit that is not loaded.
const noSuchUnit = "org.freedesktop.systemd1.NoSuchUnit"

// Manager sends requests to the systemd of this machine. It opens a connection
// for each request: requests are rare, and systemd drops connections when it
// executes itself again. The zero value is ready.
type Manager struct {
	// connect is a test's; nil for connect.
	connect func(context.Context) (conn, error)
}

// conn is a connection to systemd. *dbus.Conn implements it.
type conn interface {
	StartTransientUnitContext(ctx context.Context, name, mode string, properties []dbus.Property, ch chan<- string) (int, error)
	StopUnitContext(ctx context.Context, name, mode string, ch chan<- string) (int, error)
	ListUnitsByPatternsContext(ctx context.Context, states, patterns []string) ([]dbus.UnitStatus, error)
	Close()
}

// connect prefers the private socket of systemd, which works without a D-Bus
// daemon, and falls back on the system bus.
func connect(ctx context.Context) (conn, error) {
	private, privateErr := dbus.NewSystemdConnectionContext(ctx)
	if privateErr == nil {
		return private, nil
	}
	system, err := dbus.NewSystemConnectionContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to systemd: private socket: %w; system bus: %w", privateErr, err)
	}
	return system, nil
}

// with calls fn with a connection.
func (m *Manager) with(ctx context.Context, fn func(context.Context, conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	open := m.connect
	if open == nil {
		open = connect
	}
	c, err := open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return fn(ctx, c)
}

// Scope is a transient scope unit for a process that runs already.
type Scope struct {
	Name, Slice, Description string
	PID                      int
}

// StartScope moves a process into a new scope, and returns when the scope is
// active. systemd removes the scope when the process has ended. A shutdown does
// not stop the scope before its slice.
func (m *Manager) StartScope(ctx context.Context, s Scope) error {
	properties := []dbus.Property{
		dbus.PropSlice(s.Slice),
		dbus.PropDescription(s.Description),
		dbus.PropPids(uint32(s.PID)),
		{Name: "DefaultDependencies", Value: godbus.MakeVariant(false)},
		// Forget the scope also when it has failed.
		{Name: "CollectMode", Value: godbus.MakeVariant("inactive-or-failed")},
	}
	err := m.with(ctx, func(ctx context.Context, c conn) error {
		return job(ctx, func(ch chan<- string) error {
			_, err := c.StartTransientUnitContext(ctx, s.Name, "replace", properties, ch)
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", s.Name, err)
	}
	return nil
}

// Stop stops a unit with everything in it, and returns when the unit is inactive.
// A unit that systemd does not know is no error.
func (m *Manager) Stop(ctx context.Context, unit string) error {
	err := m.with(ctx, func(ctx context.Context, c conn) error {
		return job(ctx, func(ch chan<- string) error {
			_, err := c.StopUnitContext(ctx, unit, "replace", ch)
			return err
		})
	})
	if known := (godbus.Error{}); errors.As(err, &known) && known.Name == noSuchUnit {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stop %s: %w", unit, err)
	}
	return nil
}

// List returns the names of the loaded units that match a pattern, in the form of
// glob(7).
func (m *Manager) List(ctx context.Context, pattern string) ([]string, error) {
	var names []string
	err := m.with(ctx, func(ctx context.Context, c conn) error {
		units, err := c.ListUnitsByPatternsContext(ctx, nil, []string{pattern})
		for _, u := range units {
			names = append(names, u.Name)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list units %s: %w", pattern, err)
	}
	return names, nil
}

// job runs a request that starts a job, and waits for the result of the job.
func job(ctx context.Context, request func(chan<- string) error) error {
	result := make(chan string, 1)
	if err := request(result); err != nil {
		return err
	}
	select {
	case r := <-result:
		if r != "done" {
			return fmt.Errorf("the job ended with the result %q", r)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the job: %w", context.Cause(ctx))
	}
}

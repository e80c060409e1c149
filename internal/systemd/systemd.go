// Package systemd starts scopes and lists and stops units by requests to systemd over
// D-Bus. The caller decides which units belong to the daemon.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// timeout bounds a request to systemd and the job that the request starts.
const timeout = 30 * time.Second

// noSuchUnit is the name of the D-Bus error for a unit that is not loaded.
const noSuchUnit = "org.freedesktop.systemd1.NoSuchUnit"

// Manager sends requests to the systemd of this machine. It opens a connection
// for each request, because requests are rare and systemd closes all connections when
// it executes itself again. The zero value is ready to use.
type Manager struct {
	// dial replaces the function dial in tests.
	dial func(context.Context) (conn, error)
}

// conn is a connection to systemd. *dbus.Conn implements it.
type conn interface {
	StartTransientUnitContext(ctx context.Context, name, mode string, properties []dbus.Property, ch chan<- string) (int, error)
	StopUnitContext(ctx context.Context, name, mode string, ch chan<- string) (int, error)
	ListUnitsByPatternsContext(ctx context.Context, states, patterns []string) ([]dbus.UnitStatus, error)
	Close()
}

// dial connects to the private socket of systemd, which works without a D-Bus daemon,
// or else to the system bus.
func dial(ctx context.Context) (conn, error) {
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

// withConn calls fn with a connection.
func (m *Manager) withConn(ctx context.Context, fn func(context.Context, conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	open := m.dial
	if open == nil {
		open = dial
	}
	c, err := open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return fn(ctx, c)
}

// Scope is a transient scope unit for a running process.
type Scope struct {
	Name, Slice, Description string
	PID                      int
}

// StartScope moves a process into a new scope and waits until the scope is active.
// systemd removes the scope when the process has ended. At a shutdown, systemd stops
// the scope together with its slice, because the scope has no default dependencies.
func (m *Manager) StartScope(ctx context.Context, s Scope) error {
	properties := []dbus.Property{
		dbus.PropSlice(s.Slice),
		dbus.PropDescription(s.Description),
		dbus.PropPids(uint32(s.PID)),
		{Name: "DefaultDependencies", Value: godbus.MakeVariant(false)},
		// systemd also removes a scope that has failed.
		{Name: "CollectMode", Value: godbus.MakeVariant("inactive-or-failed")},
	}
	err := m.withConn(ctx, func(ctx context.Context, c conn) error {
		return runJob(ctx, func(ch chan<- string) error {
			_, err := c.StartTransientUnitContext(ctx, s.Name, "replace", properties, ch)
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", s.Name, err)
	}
	return nil
}

// Stop stops a unit with all processes in it and waits until the unit is inactive. A unit
// that is not loaded is no error.
func (m *Manager) Stop(ctx context.Context, unit string) error {
	err := m.withConn(ctx, func(ctx context.Context, c conn) error {
		return runJob(ctx, func(ch chan<- string) error {
			_, err := c.StopUnitContext(ctx, unit, "replace", ch)
			return err
		})
	})
	if dbusErr := (godbus.Error{}); errors.As(err, &dbusErr) && dbusErr.Name == noSuchUnit {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stop %s: %w", unit, err)
	}
	return nil
}

// List returns the names of the loaded units that match a pattern of glob(7).
func (m *Manager) List(ctx context.Context, pattern string) ([]string, error) {
	var names []string
	err := m.withConn(ctx, func(ctx context.Context, c conn) error {
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

// runJob sends a request that starts a job and waits for the result of the job.
func runJob(ctx context.Context, request func(chan<- string) error) error {
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

package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// freezePause is the time between two reads of the state of a cgroup.
const freezePause = time.Millisecond

// Freeze freezes every process in a cgroup and its descendants, and waits until all processes are frozen. If ctx ends
// first, Freeze thaws the cgroup and returns the cause of ctx.
func (t *Tree) Freeze(ctx context.Context, p string) error {
	if err := CheckPath(p); err != nil {
		return err
	}
	for {
		// On v1, a fork during the freezing can leave a process unfrozen, so Freeze repeats the write.
		if err := t.setFrozen(p, true); err != nil {
			return fmt.Errorf("freeze cgroup %s: %w", p, err)
		}
		frozen, err := t.Frozen(p)
		if err == nil && frozen {
			return nil
		}
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("freeze cgroup %s: %w", p, errors.Join(err, t.Thaw(p)))
		}
		select {
		case <-ctx.Done():
		case <-time.After(freezePause):
		}
	}
}

// Thaw undoes Freeze. If the cgroup is not frozen or does not exist, Thaw does nothing.
func (t *Tree) Thaw(p string) error {
	if err := CheckPath(p); err != nil {
		return err
	}
	err := t.setFrozen(p, false)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("thaw cgroup %s: %w", p, err)
	}
	return nil
}

// Frozen reports whether every process in a cgroup and its descendants is frozen.
func (t *Tree) Frozen(p string) (bool, error) {
	if t.v2 {
		events, err := readKeyed(filepath.Join(t.Dir("", p), "cgroup.events"))
		return events["frozen"] == 1, err
	}
	dir, err := t.freezerDir(p)
	if err != nil {
		return false, err
	}
	state, err := readLimit(filepath.Join(dir, "freezer.state"))
	return strings.TrimSpace(state) == "FROZEN", err
}

func (t *Tree) setFrozen(p string, frozen bool) error {
	if t.v2 {
		value := "0"
		if frozen {
			value = "1"
		}
		return write(filepath.Join(t.Dir("", p), "cgroup.freeze"), value)
	}
	dir, err := t.freezerDir(p)
	if err != nil {
		return err
	}
	value := "THAWED"
	if frozen {
		value = "FROZEN"
	}
	return write(filepath.Join(dir, "freezer.state"), value)
}

// freezerDir returns the directory of a cgroup of v1 in the hierarchy of the freezer controller.
func (t *Tree) freezerDir(p string) (string, error) {
	dir := t.Dir("freezer", p)
	if dir == "" {
		return "", errors.New("the freezer controller is not mounted")
	}
	return dir, nil
}

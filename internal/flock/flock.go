// Package flock opens lock files and locks them with flock(2). Closing the file releases the lock.
package flock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// maxPause bounds the pause between two attempts to get a lock that another process holds.
const maxPause = 20 * time.Millisecond

// TryOpen opens the lock file at path and locks it. It creates a missing file. If another open file has the lock, the
// error is unix.EWOULDBLOCK.
func TryOpen(path string) (*os.File, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	if err := try(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Open is like TryOpen, but waits until the lock is free or ctx ends. flock(2) itself can only wait without a deadline.
func Open(ctx context.Context, path string) (*os.File, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	for pause := time.Millisecond; ; pause = min(2*pause, maxPause) {
		err := try(f)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(err, f.Close())
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("lock %s: another process holds the lock: %w", path, context.Cause(ctx)), f.Close())
		}
	}
}

func open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
}

func try(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}

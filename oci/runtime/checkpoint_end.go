package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/criserver/criserver/internal/proc"
	"golang.org/x/sys/unix"
)

// EndDumps aborts the dumps that an earlier daemon has begun with this Mark, and waits until their runtimes and CRIU
// processes have exited. EndDumps removes the image directories, as Dump does after the end of its context, and kills
// the remaining processes after abortTimeout.
func EndDumps(ctx context.Context, mark string, imageDirs []string) error {
	killed := false
	for deadline := time.Now().Add(abortTimeout); ; {
		for _, dir := range imageDirs {
			_ = os.RemoveAll(dir) // fails if CRIU creates a file during the removal; the loop repeats the removal
		}
		left, err := marked(mark)
		if err != nil || len(left) == 0 {
			return err
		}
		if !killed && time.Now().After(deadline) {
			killed = true
			for _, p := range left {
				if err := p.Signal(unix.SIGKILL); err != nil && !errors.Is(err, proc.ErrGone) {
					return fmt.Errorf("kill a process of an interrupted dump: %w", err)
				}
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d processes of an interrupted dump are left: %w", len(left), context.Cause(ctx))
		case <-time.After(abortPause):
		}
	}
}

// marked returns the runtimes and CRIU processes that have the mark in their environment.
func marked(mark string) ([]proc.Ref, error) {
	all, err := proc.All()
	if err != nil {
		return nil, err
	}
	var found []proc.Ref
	for _, s := range all {
		if s.Zombie() {
			continue
		}
		ref, err := proc.Identify(s.PID)
		if err != nil {
			continue
		}
		env, err := os.ReadFile("/proc/" + strconv.Itoa(s.PID) + "/environ")
		if err == nil && slices.Contains(strings.Split(string(env), "\x00"), MarkVariable+"="+mark) {
			found = append(found, ref)
		}
	}
	return found, nil
}

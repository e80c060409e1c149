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

// EndDumps aborts the dumps with this Mark, which an earlier daemon has begun, and waits until none of their processes
// is left. Like Dump, it removes the directories of the images, and kills the processes that are left after a time.
func EndDumps(ctx context.Context, mark string, imageDirs []string) error {
	killed := false
	for deadline := time.Now().Add(abortTimeout); ; {
		for _, dir := range imageDirs {
			_ = os.RemoveAll(dir) // fails if CRIU makes a file meanwhile
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

// marked returns the runtimes and CRIU processes of the dump with this Mark. Their environment has the mark.
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

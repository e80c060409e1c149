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

// EndDumps waits until no process of the dump with this Mark is left. The caller has removed the ImageDir, so CRIU ends
// soon. EndDumps kills the processes that are left after a time.
func EndDumps(ctx context.Context, mark string) error {
	killed := false
	for deadline := time.Now().Add(abortTimeout); ; {
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
		case <-time.After(10 * time.Millisecond):
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

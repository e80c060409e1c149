package runtime

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/criserver/criserver/internal/proc"
	"golang.org/x/sys/unix"
)

// AdoptOrphans makes the calling process a subreaper: it becomes the parent of descendants
// whose parents exit. These are the commands that Exec starts, and the containers whose monitor
// was killed. The caller must also run ReapOrphans.
func AdoptOrphans() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("adopt orphans: %w", err)
	}
	return nil
}

// orphanAge is the age at which ReapOrphans reaps a zombie. Code that starts a process waits
// for the process at once, so no other code will wait for an older zombie.
const orphanAge = 5 * time.Second

// ReapOrphans reaps adopted processes for which no other code waits, for instance the children of a
// killed plugin. It returns when ctx ends. It looks for zombies only after a SIGCHLD.
func ReapOrphans(ctx context.Context) {
	exits := make(chan os.Signal, 1)
	signal.Notify(exits, unix.SIGCHLD)
	defer signal.Stop(exits)
	timer := time.NewTimer(orphanAge) // also find processes that exited before
	defer timer.Stop()
	timerSet := true
	var zombies map[proc.Ref]bool
	for {
		select {
		case <-ctx.Done():
			return
		case <-exits:
			if timerSet {
				continue
			}
		case <-timer.C:
			if zombies = reapOrphans(zombies); len(zombies) == 0 {
				timerSet = false
				continue
			}
		}
		timer.Reset(orphanAge)
		timerSet = true
	}
}

// reapOrphans reaps the zombies that are in before, and returns the others.
func reapOrphans(before map[proc.Ref]bool) map[proc.Ref]bool {
	zombies := make(map[proc.Ref]bool)
	for _, pid := range proc.Children() {
		ref, err := proc.Identify(pid)
		if err != nil || ref.Alive() {
			continue
		}
		if before[ref] {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
			continue
		}
		zombies[ref] = true
	}
	return zombies
}

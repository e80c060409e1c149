package oci

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/criserver/criserver/internal/proc"
	"golang.org/x/sys/unix"
)

// AdoptOrphans makes the calling process the parent of those of its descendants
// whose own parent has died: the commands that Exec starts, and the containers
// whose monitor was killed. Whoever calls it also runs ReapOrphans.
func AdoptOrphans() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("adopt orphans: %w", err)
	}
	return nil
}

// orphanAge is for how long a dead child that nobody waited for is left alone.
// All who start a process wait for it at once, so it is nobody's after that.
const orphanAge = 5 * time.Second

// ReapOrphans buries adopted processes that nobody knows of, such as what a
// killed plugin left behind, until ctx ends. It looks after a child has died,
// and not else.
func ReapOrphans(ctx context.Context) {
	deaths := make(chan os.Signal, 1)
	signal.Notify(deaths, unix.SIGCHLD)
	defer signal.Stop(deaths)
	look := time.NewTimer(orphanAge) // what died before is found too
	defer look.Stop()
	waiting := true
	var dead map[proc.Ref]bool
	for {
		select {
		case <-ctx.Done():
			return
		case <-deaths:
			if waiting {
				continue
			}
		case <-look.C:
			if dead = reapOrphans(dead); len(dead) == 0 {
				waiting = false
				continue
			}
		}
		look.Reset(orphanAge)
		waiting = true
	}
}

// reapOrphans reaps the dead that were dead before, and returns those that are.
func reapOrphans(before map[proc.Ref]bool) map[proc.Ref]bool {
	dead := make(map[proc.Ref]bool)
	for _, pid := range children() {
		ref, err := proc.Identify(pid)
		if err != nil || ref.Alive() {
			continue
		}
		if before[ref] {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
			continue
		}
		dead[ref] = true
	}
	return dead
}

// children are the pids of this process's children. A kernel without that list
// has none to show; their zombies stay then until the daemon ends.
func children() []int {
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return nil
	}
	var pids []int
	for _, list := range lists {
		b, err := os.ReadFile(list)
		if err != nil {
			continue
		}
		for f := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

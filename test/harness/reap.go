package harness

import (
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// reapDelay is how long reapOrphans leaves a zombie that this process may have
// started to the code that started it.
const reapDelay = 5 * time.Second

// reapOrphans reaps the orphans whose parent this process has become, like the init
// process of a machine. It is necessary because the first process of a PID
// namespace exits only after all others have been reaped, including commands whose
// daemon was killed.
func reapOrphans() {
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	seen := map[int]time.Time{}
	for {
		found := zombies()
		for pid := range seen {
			if !found[pid] {
				delete(seen, pid)
			}
		}
		for pid := range found {
			reap(pid, seen)
		}
		select {
		case <-children:
		case <-time.After(time.Second):
		}
	}
}

// reap waits for a zombie. Processes of containers and monitors have left the
// process group of this process. For a zombie in this process group, the code that
// started it may be about to wait, so reap gives it reapDelay.
func reap(pid int, seen map[int]time.Time) {
	group, err := unix.Getpgid(pid)
	if err != nil {
		return
	}
	if _, ok := seen[pid]; !ok {
		seen[pid] = time.Now()
	}
	if group != unix.Getpgrp() || time.Since(seen[pid]) > reapDelay {
		_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
	}
}

// zombies returns the children of this process that have exited and were not reaped.
func zombies() map[int]bool {
	found := map[int]bool{}
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		b, _ := os.ReadFile(list) // the thread may have ended
		for _, word := range strings.Fields(string(b)) {
			stat, err := os.ReadFile("/proc/" + word + "/stat")
			if pid, _ := strconv.Atoi(word); err == nil && strings.Contains(string(stat), ") Z ") {
				found[pid] = true
			}
		}
	}
	return found
}

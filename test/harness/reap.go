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

// own is how long a dead process that this one may have started itself is left
// to whoever started it.
const own = 5 * time.Second

// reap buries the orphans that come to this process, as the machine's init
// does: the first process of a PID namespace does not end before every other
// one of it has been waited for, among them commands whose daemon was killed.
func reap() {
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	seen := map[int]time.Time{}
	for {
		dead := zombies()
		for pid := range seen {
			if !dead[pid] {
				delete(seen, pid)
			}
		}
		for pid := range dead {
			bury(pid, seen)
		}
		select {
		case <-children:
		case <-time.After(time.Second):
		}
	}
}

// bury waits for a dead child. Processes of containers and monitors have left
// this process's group; of those that have not, who started them may be about to wait.
func bury(pid int, seen map[int]time.Time) {
	group, err := unix.Getpgid(pid)
	if err != nil {
		return
	}
	if _, ok := seen[pid]; !ok {
		seen[pid] = time.Now()
	}
	if group != unix.Getpgrp() || time.Since(seen[pid]) > own {
		_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
	}
}

// zombies lists the children of this process that have ended.
func zombies() map[int]bool {
	dead := map[int]bool{}
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		b, _ := os.ReadFile(list) // of a thread that may have ended
		for _, word := range strings.Fields(string(b)) {
			stat, err := os.ReadFile("/proc/" + word + "/stat")
			if pid, _ := strconv.Atoi(word); err == nil && strings.Contains(string(stat), ") Z ") {
				dead[pid] = true
			}
		}
	}
	return dead
}

package system

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// timers has the number of expirations of each timer that the image state prints.
type timers struct{ posix, interval, fd int }

func (n *node) timers(t *testing.T, p *pod, line int) (at timers) {
	t.Helper()
	waitFor(t, "the log", func() bool { return len(logLines(t, p, "state")) > line })
	text := logLines(t, p, "state")[line]
	if _, err := fmt.Sscanf(text, "timer_create %d setitimer %d timerfd %d", &at.posix, &at.interval, &at.fd); err != nil {
		t.Fatalf("line %d of the log is %q: %v", line, text, err)
	}
	return at
}

// stateImage has a program with locks of files and timers.
const stateImage = "registry.test/state:1"

// TestRestoreLocksAndTimers checks that a restored process has its locks of files and that its timers expire.
func TestRestoreLocksAndTimers(t *testing.T) {
	needCRIU(t)
	n := newNode(t, "rststate", 222)
	n.Pull(t, stateImage)
	p := n.RunPod(t, podConfig("rststate"))
	c := containerConfig(p, "state", stateImage)
	id := n.RunContainer(t, p, c)
	n.timers(t, p, 3)
	const locked = "flock locked posix locked ofd locked "
	if got := n.Exec(t, id, "/state", "locks"); got != locked {
		t.Fatalf("before the checkpoint: got %q, want %q", got, locked)
	}
	s := n.save(t, p, []*cri.ContainerConfig{c}, id)
	last := len(logLines(t, p, "state"))
	r, ids := n.mustRestore(t, s)
	n.startRestored(t, ids["state"])
	first := n.timers(t, r, last)
	if first.posix == 0 || first.interval == 0 || first.fd == 0 {
		t.Errorf("the process has begun again: %+v", first)
	}
	now := n.timers(t, r, last+20)
	if now.posix <= first.posix || now.interval <= first.interval || now.fd <= first.fd {
		t.Errorf("expirations after the restore: got %+v and later %+v, want more of each timer", first, now)
	}
	if got := n.Exec(t, ids["state"], "/state", "locks"); got != locked {
		t.Errorf("after the restore: got %q, want %q", got, locked)
	}
	n.RemovePod(t, r.ID)
}

// TestRestoreAlarm checks that a timer without an interval expires after a restore, and expires once.
func TestRestoreAlarm(t *testing.T) {
	needCRIU(t)
	n := newNode(t, "rstalarm", 223)
	n.Pull(t, stateImage)
	p := n.RunPod(t, podConfig("rstalarm"))
	c := containerConfig(p, "state", stateImage)
	c.Args = []string{"alarm", strconv.Itoa(int(harness.Patience(5*time.Second) / time.Second))}
	id := n.RunContainer(t, p, c)
	waitFor(t, "the start of the timer", func() bool { return len(logLines(t, p, "state")) > 0 })
	s := n.save(t, p, []*cri.ContainerConfig{c}, id)
	if lines := logLines(t, p, "state"); len(lines) != 1 {
		t.Fatalf("the timer has expired before the checkpoint: %q", lines)
	}
	r, ids := n.mustRestore(t, s)
	n.startRestored(t, ids["state"])
	waitFor(t, "the expiration of the timer", func() bool { return len(logLines(t, r, "state")) > 1 })
	time.Sleep(200 * time.Millisecond)
	if lines := logLines(t, r, "state"); len(lines) != 2 || lines[1] != "expired" {
		t.Errorf("log: got %q, want one expiration", lines)
	}
	n.RemovePod(t, r.ID)
}

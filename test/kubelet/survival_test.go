package kubelet

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// identity is what a container keeps as long as it lives.
type identity struct {
	id       string
	restarts int32
	pid      int
}

// identities finds all containers of pods that must be ready.
func (n *node) identities(t *testing.T, pods ...string) map[container]identity {
	t.Helper()
	found := map[container]identity{}
	for _, pod := range pods {
		p := n.wait(t, pod, ready)
		for _, s := range append(p.Status.ContainerStatuses, p.Status.InitContainerStatuses...) {
			i := identity{id: s.ContainerID, restarts: s.RestartCount}
			if s.State.Running != nil {
				i.pid = n.pid(t, s.ContainerID)
			}
			found[container{pod, s.Name}] = i
		}
	}
	return found
}

// mustBeSame waits until the kubelet makes new pods again, and looks whether the old ones are the same.
func (n *node) mustBeSame(t *testing.T, before map[container]identity, sign string, pods ...string) {
	t.Helper()
	n.runPod(t, newPod(sign, sh("main", "exec sleep 100000")))
	for c, now := range n.identities(t, pods...) {
		if now != before[c] {
			t.Errorf("container %v was %+v and is %+v", c, before[c], now)
		}
		if now.pid == 0 {
			continue
		}
		if got := n.exec(t, c, "echo alive"); got != "alive" {
			t.Errorf("exec in %v: %q", c, got)
		}
	}
}

func testSurvival(t *testing.T, n *node) {
	pods := []string{"full", "streams", "shared", "host"}
	before := n.identities(t, pods...)
	t.Run("of the kubelet's restart", func(t *testing.T) {
		n.restartKubelet(t, n.kubelet.extra)
		n.mustBeSame(t, before, "after-kubelet", pods...)
	})
	t.Run("of the daemon's restart", func(t *testing.T) {
		if err := n.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := n.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.mustBeSame(t, before, "after-restart", pods...)
	})
	t.Run("of the daemon's death", func(t *testing.T) { daemonDies(t, n, before, pods) })
}

// daemonDies kills the daemon, and a container meanwhile: that one alone is started again.
func daemonDies(t *testing.T, n *node, before map[container]identity, pods []string) {
	victim := n.runPod(t, newPod("meanwhile", sh("victim", "exec sleep 100000")))
	pid := n.pid(t, status(victim, "victim").ContainerID)
	n.Kill()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, func() error {
		if err := unix.Kill(pid, 0); err != unix.ESRCH {
			return fmt.Errorf("process %d: %v", pid, err)
		}
		return nil
	})
	if err := n.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.mustBeSame(t, before, "after-death", pods...)
	p := n.wait(t, "meanwhile", restarted("victim", 137, "Error"))
	if p.Status.Phase != corev1.PodRunning {
		t.Errorf("phase %s", p.Status.Phase)
	}
}

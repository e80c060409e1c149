package kubelet

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// identity has the values of a container that do not change while it runs.
type identity struct {
	id       string
	restarts int32
	pid      int
}

// identities returns the identities of all containers of ready pods.
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

// checkUnchanged waits until the kubelet creates new pods again, and checks that the
// containers have not changed.
func (n *node) checkUnchanged(t *testing.T, before map[container]identity, sign string, pods ...string) {
	t.Helper()
	n.runPod(t, newPod(sign, sh("main", "exec sleep 100000")))
	for c, now := range n.identities(t, pods...) {
		if now != before[c] {
			t.Errorf("container %v: got %+v after the restart, want %+v", c, now, before[c])
		}
		if now.pid == 0 {
			continue
		}
		if got := n.exec(t, c, "echo alive"); got != "alive" {
			t.Errorf("exec in %v: got %q", c, got)
		}
	}
}

func testSurvival(t *testing.T, n *node) {
	pods := []string{"full", "streams", "shared", "host"}
	before := n.identities(t, pods...)
	t.Run("restart of the kubelet", func(t *testing.T) {
		n.restartKubelet(t, n.kubelet.extra)
		n.checkUnchanged(t, before, "after-kubelet", pods...)
	})
	t.Run("restart of the daemon", func(t *testing.T) {
		if err := n.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := n.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.checkUnchanged(t, before, "after-restart", pods...)
	})
	t.Run("kill of the daemon", func(t *testing.T) { checkDaemonKill(t, n, before, pods) })
}

// checkDaemonKill kills the daemon, and a container while the daemon does not run. Only
// that container is restarted.
func checkDaemonKill(t *testing.T, n *node, before map[container]identity, pods []string) {
	pod := n.runPod(t, newPod("meanwhile", sh("killed", "exec sleep 100000")))
	pid := n.pid(t, status(pod, "killed").ContainerID)
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
	n.checkUnchanged(t, before, "after-death", pods...)
	p := n.wait(t, "meanwhile", restarted("killed", 137, "Error"))
	if p.Status.Phase != corev1.PodRunning {
		t.Errorf("phase of the pod: got %s", p.Status.Phase)
	}
}

package cluster

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestNodeShutdown shuts down a node as systemd does: the kubelet stops the pods in the order of their priority before
// the node loses its power. After the next boot the node runs pods again.
func TestNodeShutdown(t *testing.T) {
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		t.Skip("the kubelet learns of a shutdown from D-Bus, and dbus-daemon is not installed")
	}
	t.Parallel()
	var bus *logind
	n := addNode(t, NodeOptions{
		Kubelet: map[string]any{"shutdownGracePeriod": "30s", "shutdownGracePeriodCriticalPods": "10s"},
		Prepare: func(ctx context.Context, n *Node) error {
			var err error
			bus, err = startLogind(ctx, n)
			return err
		},
	})
	t.Cleanup(func() {
		if err := bus.close(); err != nil {
			t.Error(err)
		}
	})
	s := newSpace(t)
	s.apply(
		recorder("normal", n, "", 2),
		recorder("critical", n, `, "priorityClassName": "system-node-critical"`, 0),
	)
	s.ready("normal", "critical")
	eventually(t, 20*time.Second, func() error {
		if bus.inhibited() == 0 {
			return errors.New("the kubelet does not delay a shutdown")
		}
		return nil
	})
	bus.shutDown(t)
	if out, err := n.Machine.Run(t.Context(), "crictl", "ps", "-q"); err != nil || out != "" {
		t.Errorf("containers that run when the kubelet allows the shutdown: %v: %s", err, out)
	}
	if out, err := n.Machine.Run(t.Context(), "cat", "/var/lib/stops"); err != nil || out != "normal\ncritical\n" {
		t.Errorf("order in which the containers have ended: %v: %q", err, out)
	}
	s.apply(sleeper("late", n.Name, "", ""))
	for pod, reason := range map[string]string{"normal": "Terminated", "critical": "Terminated", "late": "NodeShutdown"} {
		eventually(t, 20*time.Second, func() error {
			if status := s.pod(pod).Status; status.Phase == corev1.PodRunning || status.Phase == corev1.PodPending || status.Reason != reason {
				return fmt.Errorf("pod %s: phase %s, reason %s, message %q, want reason %s", pod, status.Phase, status.Reason, status.Message, reason)
			}
			return nil
		})
	}
	s.condition(n, corev1.NodeReady, corev1.ConditionFalse)
	if err := errors.Join(bus.close(), n.PowerCut(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(n.Boot(t.Context()), n.WaitReady(t.Context())); err != nil {
		t.Fatal(err)
	}
	s.apply(sleeper("next", n.Name, "", ""))
	s.ready("next")
	for _, pod := range []string{"normal", "critical"} {
		if phase := s.pod(pod).Status.Phase; phase == corev1.PodRunning || phase == corev1.PodPending {
			t.Errorf("phase of %s after the boot: %s", pod, phase)
		}
	}
	// The kubelet does not start containers of pods that have ended.
	out, err := n.Machine.Run(t.Context(), "sh", "-c", "crictl ps -o json | jq -r '.containers[].labels[\"io.kubernetes.pod.name\"]'")
	if err != nil || strings.TrimSpace(out) != "next" {
		t.Errorf("pods with containers after the boot: %v: %s", err, out)
	}
}

// recorder returns the manifest of a pod that needs a number of seconds for its end, and then writes its name to
// /var/lib/stops on the node. The pod remains when the node is not ready. fields begin with a comma.
func recorder(name string, n *Node, fields string, seconds int) string {
	script := fmt.Sprintf("trap 'sleep %d; echo %s >>/node/stops; exit 1' TERM; while :; do sleep 0.1; done", seconds, name)
	return strings.Replace(podOf(name, n.Name, `"tolerations": [{"operator": "Exists"}], "volumes": [{"name": "node", "hostPath": {"path": "/var/lib"}}]`+fields,
		container("main", busybox, script, `"volumeMounts": [{"name": "node", "mountPath": "/node"}]`)),
		`"terminationGracePeriodSeconds": 1`, `"terminationGracePeriodSeconds": 10`, 1)
}

package cluster

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestNodeFailure checks that pods move from a node that fails, and that the returned node removes what it had.
func TestNodeFailure(t *testing.T) {
	if testing.Short() {
		t.Skip("pods leave a failed node after half a minute")
	}
	s := newSpace(t)
	n := suite.Nodes[1]
	s.apply(workload("Deployment", "app", `"replicas": 4`, spreadIfPossible("app"), container("main", nginx, webScript, "")))
	s.rollout("deployment/app")
	t.Run("network is cut", func(t *testing.T) {
		s := space{t, s.name}
		if err := n.CutNetwork(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.checkMove(n)
		if err := n.RestoreNetwork(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.checkReturn(n)
	})
	s.kubectl("rollout", "restart", "deployment/app") // puts pods on the node again
	s.rollout("deployment/app")
	t.Run("power is cut", func(t *testing.T) {
		s := space{t, s.name}
		if err := n.PowerCut(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.checkMove(n)
		if err := n.Boot(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.checkReturn(n)
	})
}

// checkMove waits until the API server knows that the node has failed, and until all replicas run on other nodes.
func (s space) checkMove(failed *Node) {
	s.Helper()
	eventually(s.T, 60*time.Second, func() error {
		var node corev1.Node
		if err := suite.Get(s.Context(), "/api/v1/nodes/"+failed.Name, &node); err != nil {
			return err
		}
		if NodeReady(&node) {
			return errors.New("the failed node is ready")
		}
		return nil
	})
	eventually(s.T, 90*time.Second, func() error {
		running := 0
		for _, p := range s.pods("app=app") {
			if p.Spec.NodeName != failed.Name && p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil {
				running++
			}
		}
		if running != 4 {
			return fmt.Errorf("%d replicas run on the remaining node, want 4", running)
		}
		return nil
	})
}

// checkReturn waits until the node is ready, and until it has exactly the sandboxes of the pods that the API server
// has assigned to it.
func (s space) checkReturn(n *Node) {
	s.Helper()
	eventually(s.T, 60*time.Second, func() error {
		var node corev1.Node
		if err := suite.Get(s.Context(), "/api/v1/nodes/"+n.Name, &node); err != nil {
			return err
		}
		if !NodeReady(&node) {
			return errors.New("the returned node is not ready")
		}
		return nil
	})
	eventually(s.T, 90*time.Second, func() error {
		var pods corev1.PodList
		if err := suite.Get(s.Context(), "/api/v1/pods?fieldSelector=spec.nodeName%3D"+n.Name, &pods); err != nil {
			return err
		}
		for _, p := range pods.Items {
			if p.DeletionTimestamp != nil {
				return fmt.Errorf("pod %s/%s is not deleted", p.Namespace, p.Name)
			}
		}
		out, err := n.Machine.Run(s.Context(), "crictl", "pods", "-q")
		if err != nil {
			return err
		}
		if got := len(strings.Fields(out)); got != len(pods.Items) {
			return fmt.Errorf("%d sandboxes on %s, want %d", got, n.Name, len(pods.Items))
		}
		links, err := n.Machine.Run(s.Context(), "sh", "-c", "ip -o link show master cri0 2>/dev/null | wc -l; ls /run/netns 2>/dev/null | wc -l")
		if err != nil {
			return err
		}
		if want := fmt.Sprintf("%[1]d\n%[1]d\n", len(pods.Items)); links != want {
			return fmt.Errorf("ports of the bridge and network namespaces on %s: %q, want %q", n.Name, links, want)
		}
		return nil
	})
	out, err := n.Machine.Run(s.Context(), "criserver", "network")
	if err != nil {
		s.Errorf("criserver network on the returned node: %v: %s", err, out)
	}
}

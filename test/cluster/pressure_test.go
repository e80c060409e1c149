package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// The sizes of the nodes that come under pressure.
const (
	podMemory = 600 << 20 // of all pods of a node
	smallDisk = 512 << 20
)

// addNode adds a node to the cluster for a test. When the test ends, the node must have no objects of pods, and is
// removed. The pods of the node are in namespaces that the test creates afterwards. The test is not part of the short
// selection.
func addNode(t *testing.T, options NodeOptions) *Node {
	t.Helper()
	if testing.Short() {
		t.Skip("the kubelet of an additional node removes the last sandboxes after a minute")
	}
	n, err := suite.AddNode(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		if err := checkEmpty(ctx, n); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			saveLogs(suite.Dir, suite.Top)
		}
		if err := n.Remove(ctx); err != nil {
			t.Error(err)
		}
	})
	return n
}

// TestMemoryEviction checks that a pod that uses much memory is evicted, that the other pod of the node continues, and
// that the node accepts pods afterwards. The kubelet compares the memory of all pods with their limit, so the
// memory of the host does not matter.
func TestMemoryEviction(t *testing.T) {
	t.Parallel()
	total, err := hostMemory()
	if err != nil {
		t.Fatal(err)
	}
	n := addNode(t, NodeOptions{Kubelet: map[string]any{
		"kubeReserved":                     map[string]string{"memory": fmt.Sprint(total - podMemory)},
		"evictionHard":                     map[string]string{"memory.available": "100Mi"},
		"evictionPressureTransitionPeriod": "10s",
	}})
	s := newSpace(t)
	const script = `awk 'BEGIN { mb = sprintf("%1048576s", "x"); for (i = 0; i < 540; i++) a[i] = mb i; while (1) system("sleep 1") }'`
	s.apply(survivor(n))
	s.ready("survivor")
	s.apply(podOf("hog", n.Name, "", container("main", busybox, script, "")))
	s.condition(n, corev1.NodeMemoryPressure, corev1.ConditionTrue)
	s.evicted("hog", "memory")
	s.condition(n, corev1.NodeMemoryPressure, corev1.ConditionFalse)
	s.wantSurvivor()
	s.apply(sleeper("next", n.Name, "", ""))
	s.ready("next")
}

// TestDiskEviction fills the disk of a node from a pod: the kubelet removes the image that no pod uses, evicts the pod,
// and keeps the other pod.
func TestDiskEviction(t *testing.T) {
	t.Parallel()
	n := addNode(t, NodeOptions{Disk: smallDisk, Kubelet: map[string]any{
		"evictionHard":                     map[string]string{"memory.available": "100Mi", "nodefs.available": "150Mi", "imagefs.available": "150Mi"},
		"imageMinimumGCAge":                "1s",
		"evictionPressureTransitionPeriod": "10s",
	}})
	s := newSpace(t)
	s.apply(survivor(n))
	s.ready("survivor")
	s.useOnce(n, nginx)
	s.apply(podOf("filler", n.Name, `"volumes": [{"name": "disk", "emptyDir": {}}]`,
		container("main", busybox, "dd if=/dev/zero of=/disk/file bs=1M count=400; exec sleep 1000", `"volumeMounts": [{"name": "disk", "mountPath": "/disk"}]`)))
	s.condition(n, corev1.NodeDiskPressure, corev1.ConditionTrue)
	s.evicted("filler", "ephemeral-storage")
	s.condition(n, corev1.NodeDiskPressure, corev1.ConditionFalse)
	s.wantSurvivor()
	images := n.images(t)
	if strings.Contains(images, nginx) || !strings.Contains(images, busybox) {
		t.Errorf("images after the pressure: %s, want %s and not %s", images, busybox, nginx)
	}
	s.apply(web("next", n.Name, "", "")) // pulls the image again
	s.ready("next")
}

// hostMemory returns the memory of the host in bytes, which is the capacity of a node.
func hostMemory() (int64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	var kilobytes int64
	if _, err := fmt.Sscanf(string(text), "MemTotal: %d kB", &kilobytes); err != nil {
		return 0, fmt.Errorf("read /proc/meminfo: %w", err)
	}
	return kilobytes << 10, nil
}

// survivor returns the manifest of a pod that no pressure evicts, because the pod uses less than it requests.
func survivor(n *Node) string {
	return sleeper("survivor", n.Name, "", `"resources": {"requests": {"cpu": "10m", "memory": "32Mi", "ephemeral-storage": "32Mi"},
"limits": {"cpu": "200m", "memory": "32Mi", "ephemeral-storage": "32Mi"}}`)
}

// wantSurvivor checks that the pod survivor runs and was not restarted.
func (s space) wantSurvivor() {
	s.Helper()
	p := s.pod("survivor")
	if p.Status.Phase != corev1.PodRunning || len(p.Status.ContainerStatuses) != 1 || p.Status.ContainerStatuses[0].RestartCount != 0 {
		s.Errorf("the other pod of the node: %+v, want a running pod without a restart", p.Status)
	}
}

// useOnce runs a pod with an image and deletes the pod. The node keeps the image. The kubelet is restarted, because it
// removes only images that it has seen before, and looks for images when it starts and then every five minutes.
func (s space) useOnce(n *Node, image string) {
	s.Helper()
	s.apply(podOf("former", n.Name, "", container("main", image, sleepScript, "")))
	s.ready("former")
	s.kubectl("delete", "pod", "former")
	if images := n.images(s.T); !strings.Contains(images, image) {
		s.Fatalf("images of %s: %s, want %s", n.Name, images, image)
	}
	if err := errors.Join(n.StopService(s.Context(), Kubelet, syscall.SIGTERM), n.StartKubelet()); err != nil {
		s.Fatal(err)
	}
}

// images returns the names of the images of a node.
func (n *Node) images(t *testing.T) string {
	t.Helper()
	out, err := n.Machine.Run(t.Context(), "sh", "-c", "crictl images -o json | jq -r '.images[].repoTags[]'")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(out), " ")
}

// evicted waits until a pod is evicted because of a resource.
func (s space) evicted(pod, resource string) {
	s.Helper()
	eventually(s.T, 90*time.Second, func() error {
		status := s.pod(pod).Status
		if status.Phase != corev1.PodFailed || status.Reason != "Evicted" || !strings.Contains(status.Message, resource) {
			return fmt.Errorf("pod %s: phase %s, reason %q, message %q, want an eviction because of %s", pod, status.Phase, status.Reason, status.Message, resource)
		}
		return nil
	})
}

// condition waits until a condition of a node has a status.
func (s space) condition(n *Node, name corev1.NodeConditionType, want corev1.ConditionStatus) {
	s.Helper()
	eventually(s.T, 60*time.Second, func() error {
		var object corev1.Node
		if err := suite.Get(s.Context(), "/api/v1/nodes/"+n.Name, &object); err != nil {
			return err
		}
		for _, c := range object.Status.Conditions {
			if c.Type != name {
				continue
			}
			if c.Status != want {
				return fmt.Errorf("condition %s of %s: %s, want %s: %s", name, n.Name, c.Status, want, c.Message)
			}
			return nil
		}
		return errors.New("node " + n.Name + " has no condition " + string(name))
	})
}

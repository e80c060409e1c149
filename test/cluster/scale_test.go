package cluster

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// podsPerNode is the number of pods of TestScale on each node.
const podsPerNode = 100

// TestScale runs many pods on each node, and reports the time until all of them run, what the runtime and the node need
// for them, and how long the kubelet takes to list them.
func TestScale(t *testing.T) {
	if testing.Short() {
		t.Skip("200 pods take minutes")
	}
	s := newSpace(t)
	count := podsPerNode * len(suite.Nodes)
	before := map[*Node]usage{}
	for _, n := range suite.Nodes {
		before[n] = readUsage(t, n)
	}
	began := time.Now()
	s.apply(workload("Deployment", "many", fmt.Sprintf(`"replicas": %d, "progressDeadlineSeconds": 1200`, count), spread("many"),
		container("main", busybox, "exec sleep 100000", `"imagePullPolicy": "IfNotPresent"`)))
	eventually(t, 240*time.Second, func() error {
		running := 0
		for _, p := range s.pods("app=many") {
			if p.Status.Phase == corev1.PodRunning {
				running++
			}
		}
		if running != count {
			return fmt.Errorf("%d pods run, want %d", running, count)
		}
		return nil
	})
	t.Logf("%d pods run after %.1f s", count, time.Since(began).Seconds())
	running := map[*Node]usage{}
	for _, n := range suite.Nodes {
		running[n] = readUsage(t, n)
		n.logUsage(t, before[n], running[n])
	}
	time.Sleep(10 * time.Second) // the kubelet lists the pods every second
	for _, n := range suite.Nodes {
		idle := readUsage(t, n)
		if idle.relists == running[n].relists {
			t.Errorf("%s: the kubelet has not listed the pods for 10 s", n.Name)
		}
		t.Logf("%s: with %d pods the kubelet's relist takes %.1f ms; in 10 s the runtime used %.2f s of CPU time, and the node %.2f s",
			n.Name, podsPerNode, idle.relist(running[n]), idle.runtimeCPU-running[n].runtimeCPU, idle.nodeCPU-running[n].nodeCPU)
	}
	began = time.Now()
	s.kubectl("delete", "deployment", "many", "--wait=false")
	eventually(t, 240*time.Second, func() error {
		if left := len(s.pods("app=many")); left > 0 {
			return fmt.Errorf("%d pods exist", left)
		}
		return nil
	})
	t.Logf("%d pods are deleted after %.1f s", count, time.Since(began).Seconds())
}

// logUsage logs the resource usage of a node during the start of its pods.
func (n *Node) logUsage(t *testing.T, before, after usage) {
	t.Helper()
	t.Logf("%s: %d pods needed %.1f s of CPU time of the runtime and its children, and %.1f s of the whole node; the kubelet's relist took %.1f ms",
		n.Name, podsPerNode, after.runtimeCPU-before.runtimeCPU, after.nodeCPU-before.nodeCPU, after.relist(before))
	t.Logf("%s: the runtime has %d MiB of memory (%d MiB before), its %d helpers %d MiB (%d MiB before)", n.Name,
		after.runtime>>20, before.runtime>>20, after.processes, after.helpers>>20, before.helpers>>20)
}

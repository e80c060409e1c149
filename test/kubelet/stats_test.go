package kubelet

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// checkSummary checks the stats of a pod and its containers in /stats/summary. Stats
// of network traffic and processes of the pod come only from the CRI, because
// cAdvisor looks for a pause container.
func checkSummary(t *testing.T, n *node, fromCRI bool, pod string, containers ...string) {
	t.Helper()
	eventually(t, 60*time.Second, func() error {
		var s stats.Summary
		if err := n.json(t.Context(), "stats/summary", &s); err != nil {
			return err
		}
		for _, p := range s.Pods {
			if p.PodRef.Name == pod+"-"+nodeName {
				return errors.Join(podFigures(p, fromCRI), containerFigures(p, containers))
			}
		}
		return fmt.Errorf("got the stats of %d pods, but not of pod %s", len(s.Pods), pod)
	})
}

func podFigures(p stats.PodStats, fromCRI bool) error {
	if p.CPU == nil || p.Memory == nil || p.CPU.UsageCoreNanoSeconds == nil || *p.CPU.UsageCoreNanoSeconds == 0 ||
		p.Memory.WorkingSetBytes == nil || *p.Memory.WorkingSetBytes == 0 {
		return fmt.Errorf("CPU and memory of the pod: %+v, %+v", p.CPU, p.Memory)
	}
	if fromCRI && (p.Network == nil || p.Network.Name != "eth0" || p.Network.RxBytes == nil || *p.Network.RxBytes == 0) {
		return fmt.Errorf("network of the pod: %+v", p.Network)
	}
	if p.EphemeralStorage == nil || p.EphemeralStorage.UsedBytes == nil || fromCRI && (p.ProcessStats == nil || *p.ProcessStats.ProcessCount == 0) {
		return fmt.Errorf("storage, processes of the pod: %+v, %+v", p.EphemeralStorage, p.ProcessStats)
	}
	return nil
}

func containerFigures(p stats.PodStats, containers []string) error {
	found := map[string]stats.ContainerStats{}
	for _, c := range p.Containers {
		found[c.Name] = c
	}
	for _, name := range containers {
		c, ok := found[name]
		if !ok {
			return fmt.Errorf("no stats of container %s", name)
		}
		if c.CPU == nil || c.CPU.UsageCoreNanoSeconds == nil || c.CPU.UsageNanoCores == nil ||
			c.Memory == nil || c.Memory.WorkingSetBytes == nil || *c.Memory.WorkingSetBytes == 0 {
			return fmt.Errorf("CPU and memory of container %s: %+v, %+v", name, c.CPU, c.Memory)
		}
		if c.Rootfs == nil || c.Rootfs.UsedBytes == nil || *c.Rootfs.UsedBytes == 0 || c.Logs == nil || c.Logs.UsedBytes == nil {
			return fmt.Errorf("root file system and logs of container %s: %+v, %+v", name, c.Rootfs, c.Logs)
		}
	}
	return nil
}

// checkMetrics checks that a metrics endpoint of the kubelet has a line for each name
// with all labels.
func checkMetrics(t *testing.T, n *node, path string, labels []string, names ...string) {
	t.Helper()
	eventually(t, 60*time.Second, func() error {
		text, err := n.get(t.Context(), n.url(path, container{}, nil))
		if err != nil {
			return err
		}
		for _, name := range names {
			if !hasMetric(text, name, labels) {
				return fmt.Errorf("%s has no %s with %v", path, name, labels)
			}
		}
		return nil
	})
}

func hasMetric(text, name string, labels []string) bool {
lines:
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, name+"{") {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(line, l) {
				continue lines
			}
		}
		return true
	}
	return false
}

func testStats(t *testing.T, n *node) {
	checkSummary(t, n, false, "full", "app", "other", "side")
	checkMetrics(t, n, "metrics/resource", []string{`container="app"`, `namespace="default"`, `pod="full-node"`},
		"container_cpu_usage_seconds_total", "container_memory_working_set_bytes")
}

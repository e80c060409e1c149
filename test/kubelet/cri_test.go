package kubelet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// TestKubeletFromTheCRI runs a kubelet that takes stats, metrics, streamed lists and
// events from the CRI, and one that assigns exclusive CPUs.
func TestKubeletFromTheCRI(t *testing.T) {
	n := newNode(t, "cri", 82, map[string]any{
		"featureGates": map[string]bool{
			"PodAndContainerStatsFromCRI": true, "CRIListStreaming": true, "EventedPLEG": true,
			"ContainerStopSignals": true,
		},
	})
	talk := sh("talk", "exec sleep 100000")
	talk.Resources.Limits = amounts("cpu", "500m", "memory", "64Mi")
	talk.Resources.Requests = amounts("cpu", "0") // so that one CPU remains for the guaranteed pod
	n.runPod(t, newPod("one", talk, sh("web", "mkdir /www; exec busybox httpd -f -p 8080 -h /www")))
	n.exec(t, container{"one", "web"}, "wget -q -O- http://"+nodeIP+":10248/healthz || true; echo x > /file")

	t.Run("summary", func(t *testing.T) { checkSummary(t, n, true, "one", "talk", "web") })
	t.Run("metrics", func(t *testing.T) {
		of := []string{`namespace="default"`, `pod="one-node"`}
		checkMetrics(t, n, "metrics/cadvisor", append(of, `container="talk"`),
			"container_cpu_usage_seconds_total", "container_memory_working_set_bytes", "container_fs_usage_bytes",
			"container_cpu_cfs_periods_total", "container_memory_cache", "container_memory_failures_total",
			"container_processes", "container_ulimits_soft", "container_last_seen")
		checkMetrics(t, n, "metrics/cadvisor", append(of, `container="talk"`, " 6.7108864e+07 "), "container_spec_memory_limit_bytes")
		checkMetrics(t, n, "metrics/cadvisor", append(of, `container="talk"`, " 50000 "), "container_spec_cpu_quota")
		checkMetrics(t, n, "metrics/cadvisor", append(of, `interface="eth0"`), "container_network_receive_bytes_total")
		checkMetrics(t, n, "metrics/resource", append(of, `container="web"`), "container_cpu_usage_seconds_total")
	})
	t.Run("streamed lists", func(t *testing.T) { checkStreamedLists(t, n) })
	t.Run("events", func(t *testing.T) { checkEvents(t, n) })
	t.Run("stop signal", func(t *testing.T) { checkStopSignal(t, n) })
	t.Run("checkpoint", func(t *testing.T) { checkCheckpoint(t, n) })
	t.Run("exclusive CPU", func(t *testing.T) { checkCPUs(t, n) })
}

// checkStreamedLists checks that the kubelet called the streaming RPCs. The log of the
// daemon also has the lists that this test requested.
func checkStreamedLists(t *testing.T, n *node) {
	log, err := os.ReadFile(n.LogPath())
	if err != nil {
		t.Fatal(err)
	}
	for _, rpc := range []string{"StreamContainers", "StreamPodSandboxes", "StreamImages", "StreamPodSandboxStats", "StreamPodSandboxMetrics"} {
		if !strings.Contains(string(log), "msg="+rpc) {
			t.Errorf("the kubelet did not call %s", rpc)
		}
	}
}

// checkEvents checks that the kubelet receives events. With events the kubelet lists
// only every five minutes, so changes that it knows within seconds come from events.
func checkEvents(t *testing.T, n *node) {
	text, err := n.get(t.Context(), n.url("metrics", container{}, nil))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text, "\nkubelet_evented_pleg_connection_success_count 1\n") {
		t.Error("the kubelet has no connection to GetContainerEvents")
	}
	p := n.runPod(t, newPod("events", sh("killed", "exec sleep 100000"), sh("other", "exec sleep 100000")))
	if err := unix.Kill(n.pid(t, status(p, "killed").ContainerID), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.wait(t, "events", restarted("killed", 137, "Error"))
	done := newPod("ends", sh("main", "exit 4"))
	done.Spec.RestartPolicy = corev1.RestartPolicyNever
	n.apply(t, done)
	n.wait(t, "ends", func(p *corev1.Pod) error {
		if s := status(p, "main").State.Terminated; p.Status.Phase != corev1.PodFailed || s == nil || s.ExitCode != 4 {
			return errors.New("the pod has not failed")
		}
		return nil
	})
}

// checkStopSignal checks that a container receives the stop signal of its manifest
// in place of SIGTERM.
func checkStopSignal(t *testing.T, n *node) {
	host := n.kubelet.path("signal")
	if err := os.Mkdir(host, 0o755); err != nil {
		t.Fatal(err)
	}
	c := sh("main", "for s in TERM USR1; do trap \"echo $s >> /host/order; exit 0\" $s; done; touch /ready; while :; do usleep 50000; done")
	c.Lifecycle = &corev1.Lifecycle{StopSignal: ptr(corev1.SIGUSR1)}
	c.ReadinessProbe = execProbe("test -e /ready")
	c.VolumeMounts = []corev1.VolumeMount{{Name: "host", MountPath: "/host"}}
	p := newPod("signal", c)
	p.Spec.OS = &corev1.PodOS{Name: corev1.Linux}
	p.Spec.TerminationGracePeriodSeconds = ptr(int64(60))
	p.Spec.Volumes = []corev1.Volume{hostPath("host", host)}
	p = n.runPod(t, p)
	if err := os.Remove(n.manifest("signal")); err != nil {
		t.Fatal(err)
	}
	n.waitRemoved(t, p)
	if got, err := os.ReadFile(filepath.Join(host, "order")); err != nil || string(got) != "USR1\n" {
		t.Errorf("signals of the container: got %q (error %v), want USR1", got, err)
	}
}

// checkCPUs checks the static CPU policy: a guaranteed pod gets exclusive CPUs, which
// the kubelet removes from running containers with UpdateContainerResources.
func checkCPUs(t *testing.T, n *node) {
	all, err := os.ReadFile("/sys/fs/cgroup/cpuset/cpuset.cpus")
	if err != nil {
		if all, err = os.ReadFile("/sys/fs/cgroup/cpuset.cpus.effective"); err != nil {
			t.Skip("the host has no cpuset controller: ", err)
		}
	}
	if strings.TrimSpace(string(all)) == "0" {
		t.Skip("exclusive CPUs need a machine with two CPUs")
	}
	extra := map[string]any{
		"cpuManagerPolicy": "static", "reservedSystemCPUs": "0", "cpuManagerReconcilePeriod": "1s",
	}
	for key, value := range n.kubelet.extra {
		extra[key] = value
	}
	if err := n.kubelet.stop(); err != nil {
		t.Fatal(err)
	}
	// The kubelet refuses to start with this file after a change of the policy.
	if err := os.Remove(filepath.Join(n.kubelet.path("root"), "cpu_manager_state")); err != nil {
		t.Fatal(err)
	}
	n.kubelet.extra = extra
	n.startKubelet(t)

	shared := n.wait(t, "one", ready)
	c := sh("main", "exec sleep 100000")
	c.Resources.Limits = amounts("cpu", "1", "memory", "64Mi")
	p := n.runPod(t, newPod("guaranteed", c))
	exclusive, err := cgroupFile(n.pid(t, status(p, "main").ContainerID), "cpuset", "cpuset.cpus", "cpuset.cpus")
	if err != nil || exclusive == "" || exclusive == "0" || strings.ContainsAny(exclusive, ",-") {
		t.Fatalf("CPUs of the guaranteed pod: got %q (error %v), want one that is not reserved", exclusive, err)
	}
	eventually(t, 60*time.Second, func() error {
		got, err := cgroupFile(n.pid(t, status(shared, "web").ContainerID), "cpuset", "cpuset.cpus", "cpuset.cpus")
		if err != nil || got == "" || hasCPU(got, exclusive) {
			return fmt.Errorf("CPUs of another pod: got %q (error %v), want them without %s", got, err, exclusive)
		}
		return nil
	})
	if now := n.wait(t, "one", ready); status(now, "web").ContainerID != status(shared, "web").ContainerID {
		t.Error("the container of the other pod was restarted")
	}
}

// hasCPU reports whether a list like 0-3,5 contains a CPU.
func hasCPU(list, cpu string) bool {
	var wanted, from, to int
	if _, err := fmt.Sscan(cpu, &wanted); err != nil {
		return false
	}
	for _, part := range strings.Split(list, ",") {
		if n, _ := fmt.Sscanf(part, "%d-%d", &from, &to); n == 1 {
			to = from
		}
		if from <= wanted && wanted <= to {
			return true
		}
	}
	return false
}

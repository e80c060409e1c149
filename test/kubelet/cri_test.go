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

// TestKubeletFromTheCRI has the kubelet take from the CRI what it can: figures,
// metrics, lists as streams, and in place of its own polling the events. CPUs it
// hands out itself.
func TestKubeletFromTheCRI(t *testing.T) {
	n := newNode(t, "cri", 82, map[string]any{
		"featureGates": map[string]bool{
			"PodAndContainerStatsFromCRI": true, "CRIListStreaming": true, "EventedPLEG": true,
			"ContainerStopSignals": true,
		},
	})
	talk := sh("talk", "exec sleep 100000")
	talk.Resources.Limits = amounts("cpu", "500m", "memory", "64Mi")
	talk.Resources.Requests = amounts("cpu", "0") // so that there is a whole CPU to give away
	n.runPod(t, newPod("one", talk, sh("web", "mkdir /www; exec busybox httpd -f -p 8080 -h /www")))
	n.exec(t, container{"one", "web"}, "wget -q -O- http://"+nodeIP+":10248/healthz || true; echo x > /file")

	t.Run("summary", func(t *testing.T) { checkSummary(t, n, true, "one", "talk", "web") })
	t.Run("metrics", func(t *testing.T) {
		of := []string{`namespace="default"`, `pod="one-node"`}
		checkMetrics(t, n, "metrics/cadvisor", append(of, `container="talk"`),
			"container_cpu_usage_seconds_total", "container_memory_working_set_bytes", "container_fs_usage_bytes",
			"container_cpu_cfs_periods_total", "container_memory_cache", "container_memory_failures_total", "container_processes", "container_ulimits_soft", "container_last_seen")
		checkMetrics(t, n, "metrics/cadvisor", append(of, `container="talk"`, " 6.7108864e+07 "), "container_spec_memory_limit_bytes")
		checkMetrics(t, n, "metrics/cadvisor", append(of, `container="talk"`, " 50000 "), "container_spec_cpu_quota")
		checkMetrics(t, n, "metrics/cadvisor", append(of, `interface="eth0"`), "container_network_receive_bytes_total")
		checkMetrics(t, n, "metrics/resource", append(of, `container="web"`), "container_cpu_usage_seconds_total")
	})
	t.Run("lists come as streams", func(t *testing.T) { checkStreamedLists(t, n) })
	t.Run("events", func(t *testing.T) { checkEvents(t, n) })
	t.Run("a stop signal of its own", func(t *testing.T) { checkStopSignal(t, n) })
	t.Run("a CPU of its own", func(t *testing.T) { checkCPUs(t, n) })
}

// checkStreamedLists: the daemon was asked for streams. The lists in its log are this test's own.
func checkStreamedLists(t *testing.T, n *node) {
	log, err := os.ReadFile(n.LogPath())
	if err != nil {
		t.Fatal(err)
	}
	for _, rpc := range []string{"StreamContainers", "StreamPodSandboxes", "StreamImages", "StreamPodSandboxStats", "StreamPodSandboxMetrics"} {
		if !strings.Contains(string(log), "msg="+rpc) {
			t.Errorf("the kubelet never called %s", rpc)
		}
	}
}

// checkEvents: with events the kubelet lists only every five minutes, so that
// what it knows within seconds it was told.
func checkEvents(t *testing.T, n *node) {
	text, err := n.get(t.Context(), n.url("metrics", container{}, nil))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text, "\nkubelet_evented_pleg_connection_success_count 1\n") {
		t.Error("the kubelet has no connection for events")
	}
	p := n.runPod(t, newPod("events", sh("victim", "exec sleep 100000"), sh("other", "exec sleep 100000")))
	if err := unix.Kill(n.pid(t, status(p, "victim").ContainerID), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.wait(t, "events", restarted("victim", 137, "Error"))
	done := newPod("ends", sh("main", "exit 4"))
	done.Spec.RestartPolicy = corev1.RestartPolicyNever
	n.apply(t, done)
	n.wait(t, "ends", func(p *corev1.Pod) error {
		if s := status(p, "main").State.Terminated; p.Status.Phase != corev1.PodFailed || s == nil || s.ExitCode != 4 {
			return errors.New("not failed")
		}
		return nil
	})
}

// checkStopSignal: the manifest's signal comes in place of SIGTERM.
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
	n.gone(t, p)
	if got, err := os.ReadFile(filepath.Join(host, "order")); err != nil || string(got) != "USR1\n" {
		t.Errorf("the signals that came: %q, %v", got, err)
	}
}

// checkCPUs: with the static policy, a guaranteed pod gets CPUs which all others
// are taken off, by UpdateContainerResources of those that run.
func checkCPUs(t *testing.T, n *node) {
	all, err := os.ReadFile("/sys/fs/cgroup/cpuset/cpuset.cpus")
	if err != nil {
		if all, err = os.ReadFile("/sys/fs/cgroup/cpuset.cpus.effective"); err != nil {
			t.Skip("the cpuset controller is not there: ", err)
		}
	}
	if strings.TrimSpace(string(all)) == "0" {
		t.Skip("a machine of one CPU has none to hand out")
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
	// The kubelet wants this file gone when the policy changes.
	if err := os.Remove(filepath.Join(n.kubelet.path("root"), "cpu_manager_state")); err != nil {
		t.Fatal(err)
	}
	n.kubelet.extra = extra
	n.startKubelet(t)

	shared := n.wait(t, "one", ready)
	c := sh("main", "exec sleep 100000")
	c.Resources.Limits = amounts("cpu", "1", "memory", "64Mi")
	p := n.runPod(t, newPod("guaranteed", c))
	own, err := cgroupFile(n.pid(t, status(p, "main").ContainerID), "cpuset", "cpuset.cpus", "cpuset.cpus")
	if err != nil || own == "" || own == "0" || strings.ContainsAny(own, ",-") {
		t.Fatalf("the guaranteed pod has the CPUs %q: %v; want one, not the reserved one", own, err)
	}
	eventually(t, 60*time.Second, func() error {
		got, err := cgroupFile(n.pid(t, status(shared, "web").ContainerID), "cpuset", "cpuset.cpus", "cpuset.cpus")
		if err != nil || got == "" || hasCPU(got, own) {
			return fmt.Errorf("another pod has the CPUs %q: %v; %s is taken", got, err, own)
		}
		return nil
	})
	if now := n.wait(t, "one", ready); status(now, "web").ContainerID != status(shared, "web").ContainerID {
		t.Error("the other pod was started again")
	}
}

// hasCPU tells whether a list like 0-3,5 has a CPU.
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

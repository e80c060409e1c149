package kubelet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// slowExit returns a script that writes to a file of the host when it receives
// SIGTERM, waits, writes again, and exits.
func slowExit(word string) string {
	return fmt.Sprintf("trap 'echo %[1]s stops >> /host/order; usleep 1500000; echo %[1]s exits >> /host/order; exit 0' TERM; "+
		"while :; do usleep 50000; done", word)
}

// testDeletion checks the order of a deletion: the preStop hook, the stop signal, the
// exit within the grace period, and then the sidecar.
func testDeletion(t *testing.T, n *node) {
	host := n.kubelet.path("goodbye")
	if err := os.Mkdir(host, 0o755); err != nil {
		t.Fatal(err)
	}
	always := corev1.ContainerRestartPolicyAlways
	side, main := sh("side", slowExit("side")), sh("main", slowExit("main"))
	side.RestartPolicy = &always
	main.Lifecycle = &corev1.Lifecycle{PreStop: execHook("echo hook >> /host/order")}
	side.VolumeMounts = []corev1.VolumeMount{{Name: "host", MountPath: "/host"}}
	main.VolumeMounts = []corev1.VolumeMount{{Name: "host", MountPath: "/host"}, {Name: "memory", MountPath: "/memory"}}
	p := newPod("goodbye", main)
	p.Spec.InitContainers = []corev1.Container{side}
	p.Spec.TerminationGracePeriodSeconds = ptr(int64(60))
	p.Spec.Volumes = []corev1.Volume{
		hostPath("host", host), emptyDir("memory", corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}),
	}
	p = n.runPod(t, p)
	if traces := n.traces(t, p); len(traces) < 4 {
		t.Fatalf("objects of the running pod: got %v, want at least 4", traces)
	}
	if err := os.Remove(n.manifest("goodbye")); err != nil {
		t.Fatal(err)
	}
	n.waitRemoved(t, p)
	order, err := os.ReadFile(filepath.Join(host, "order"))
	if want := "hook\nmain stops\nmain exits\nside stops\nside exits\n"; err != nil || string(order) != want {
		t.Errorf("order of the deletion: got %q (error %v), want %q", order, err, want)
	}
}

// testStubborn checks that a container that ignores its stop signal is killed after
// the grace period.
func testStubborn(t *testing.T, n *node) {
	p := newPod("stubborn", sh("main", "trap 'echo no' TERM; while :; do usleep 50000; done"))
	p.Spec.TerminationGracePeriodSeconds = ptr(int64(2))
	p = n.runPod(t, p)
	if err := os.Remove(n.manifest("stubborn")); err != nil {
		t.Fatal(err)
	}
	n.waitRemoved(t, p)
}

func testUpdate(t *testing.T, n *node) {
	version := func(v string) *corev1.Pod {
		c := sh("main", "exec sleep 100000")
		c.Env = []corev1.EnvVar{{Name: "VERSION", Value: v}}
		return newPod("update", c)
	}
	before := n.runPod(t, version("1"))
	n.apply(t, version("2"))
	n.wait(t, "update", func(p *corev1.Pod) error {
		if p.UID == before.UID {
			return errors.New("the pod has not been replaced")
		}
		return ready(p)
	})
	if got := n.exec(t, container{"update", "main"}, "echo $VERSION"); got != "2" {
		t.Errorf("version of the running pod: got %s, want 2", got)
	}
	n.waitRemoved(t, before)
}

// traces returns the objects of a pod on the machine: containers, cgroups, volumes,
// mounts and logs.
func (n *node) traces(t *testing.T, p *corev1.Pod) []string {
	t.Helper()
	objects, err := n.podObjects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, l := range append(objects, strings.Split(string(info), "\n")...) {
		if n.kubelet.cgroup.mentions(l, string(p.UID)) {
			found = append(found, l)
		}
	}
	return found
}

// waitRemoved waits until only the sandbox and the log of a pod exist. The kubelet
// removes them within a minute.
func (n *node) waitRemoved(t *testing.T, p *corev1.Pod) {
	t.Helper()
	eventually(t, 60*time.Second, func() error {
		for _, l := range n.traces(t, p) {
			if !strings.HasPrefix(l, n.kubelet.path("logs")) {
				return fmt.Errorf("object of the removed pod: %s", l)
			}
		}
		return nil
	})
}

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

// onEnd is a script that writes word to a file of the host when it is told to
// end, goes on for a while, and writes again.
func onEnd(word string) string {
	return fmt.Sprintf("trap 'echo %[1]s told >> /host/order; usleep 1500000; echo %[1]s ends >> /host/order; exit 0' TERM; while :; do usleep 50000; done", word)
}

// testDeletion: the hook comes first, then the signal, then the time that the
// pod was granted; the sidecar goes last.
func testDeletion(t *testing.T, n *node) {
	host := n.kubelet.path("goodbye")
	if err := os.Mkdir(host, 0o755); err != nil {
		t.Fatal(err)
	}
	always := corev1.ContainerRestartPolicyAlways
	side, main := sh("side", onEnd("side")), sh("main", onEnd("main"))
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
		t.Fatalf("the search for what a pod leaves finds too little while it runs: %v", traces)
	}
	if err := os.Remove(n.manifest("goodbye")); err != nil {
		t.Fatal(err)
	}
	n.gone(t, p)
	order, err := os.ReadFile(filepath.Join(host, "order"))
	if want := "hook\nmain told\nmain ends\nside told\nside ends\n"; err != nil || string(order) != want {
		t.Errorf("the end came in the order %q, %v; want %q", order, err, want)
	}
}

// testStubborn: who does not go is killed when the time is over.
func testStubborn(t *testing.T, n *node) {
	p := newPod("stubborn", sh("main", "trap 'echo no' TERM; while :; do usleep 50000; done"))
	p.Spec.TerminationGracePeriodSeconds = ptr(int64(2))
	p = n.runPod(t, p)
	if err := os.Remove(n.manifest("stubborn")); err != nil {
		t.Fatal(err)
	}
	n.gone(t, p)
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
			return errors.New("still the old one")
		}
		return ready(p)
	})
	if got := n.exec(t, container{"update", "main"}, "echo $VERSION"); got != "2" {
		t.Errorf("version %s runs", got)
	}
	n.gone(t, before)
}

// traces lists what a pod has on the machine: its containers, cgroups, volumes,
// mounts and logs.
func (n *node) traces(t *testing.T, p *corev1.Pod) []string {
	t.Helper()
	left, err := n.podsLeft(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, l := range append(left, strings.Split(string(info), "\n")...) {
		if n.kubelet.cgroup.mentions(l, string(p.UID)) {
			found = append(found, l)
		}
	}
	return found
}

// gone waits until nothing is left of a pod but its sandbox, which the kubelet
// keeps for up to a minute, and its log, which goes with that.
func (n *node) gone(t *testing.T, p *corev1.Pod) {
	t.Helper()
	eventually(t, 60*time.Second, func() error {
		for _, l := range n.traces(t, p) {
			if !strings.HasPrefix(l, n.kubelet.path("logs")) {
				return fmt.Errorf("left: %s", l)
			}
		}
		return nil
	})
}

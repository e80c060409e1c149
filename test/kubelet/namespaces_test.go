package kubelet

import (
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func testSharedProcesses(t *testing.T, n *node) {
	p := newPod("shared", sh("one", "exec sleep 100001"), sh("two", "exec sleep 100002"))
	p.Spec.ShareProcessNamespace = ptr(true)
	n.runPod(t, p)
	got := n.exec(t, container{"shared", "one"}, "ps -o pid,args | grep 'sleep 10000[12]$'; cat /proc/1/comm")
	if !strings.Contains(got, "sleep 100001") || !strings.Contains(got, "sleep 100002") || strings.HasSuffix(got, "sleep") {
		t.Errorf("processes in one of the containers: got %q", got)
	}
}

func testHostNamespaces(t *testing.T, n *node) {
	p := newPod("host", sh("main", "exec sleep 100000"))
	p.Spec.HostNetwork, p.Spec.HostPID, p.Spec.HostIPC = true, true, true
	p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr(true)}
	n.runPod(t, p)
	main := container{"host", "main"}
	for _, ns := range []string{"net", "pid", "ipc"} {
		mine, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		if got := n.exec(t, main, "readlink /proc/self/ns/"+ns); got != mine {
			t.Errorf("%s namespace: got %s, want that of the host, %s", ns, got, mine)
		}
	}
	if got := n.exec(t, main, "test -w /proc/sys/net/ipv4/ip_forward && test -e /dev/kmsg && echo privileged"); got != "privileged" {
		t.Errorf("privileged container: got %q", got)
	}
}

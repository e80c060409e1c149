package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/criserver/criserver/test/harness"
)

// TestPods checks fields of pods that the API server, the kubelet and the runtime implement together.
func TestPods(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"in-place resize":         testResize,
		"runtime classes":         testRuntimeClasses,
		"user namespace":          testUserNamespace,
		"seccomp":                 testSeccomp,
		"AppArmor":                testAppArmor,
		"restart after a failure": testProbes,
		"host aliases and DNS":    testPodDNS,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

// limits is a shell command that prints the memory limit of its container in bytes, and the CPU time per 100 ms in
// microseconds.
const limits = `cd /sys/fs/cgroup
cat memory.max memory/memory.limit_in_bytes 2>/dev/null
cut -d' ' -f1 cpu.max cpu/cpu.cfs_quota_us 2>/dev/null || true`

// testResize changes the limits of a running container, which continues to run.
func testResize(t *testing.T) {
	s := newSpace(t)
	s.apply(sleeper("resized", "", "", `"resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}`))
	s.ready("resized")
	s.want("limits", s.sh("resized", limits), fmt.Sprintf("%d\n20000", 64<<20))
	before := s.pod("resized").Status.ContainerStatuses[0]
	s.kubectl("patch", "pod", "resized", "--subresource", "resize", "-p",
		`{"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": "100m", "memory": "48Mi"}, "limits": {"cpu": "400m", "memory": "96Mi"}}}]}}`)
	eventually(t, 30*time.Second, func() error {
		if got := s.sh("resized", limits); got != fmt.Sprintf("%d\n40000", 96<<20) {
			return fmt.Errorf("limits after the resize: %q", got)
		}
		status := s.pod("resized").Status.ContainerStatuses[0]
		if status.Resources == nil || status.Resources.Limits.Memory().Value() != 96<<20 {
			return fmt.Errorf("resources in the status: %+v", status.Resources)
		}
		return nil
	})
	after := s.pod("resized").Status.ContainerStatuses[0]
	if after.ContainerID != before.ContainerID || after.RestartCount != 0 {
		t.Errorf("container after the resize: %s with %d restarts, want %s", after.ContainerID, after.RestartCount, before.ContainerID)
	}
}

// testRuntimeClasses runs pods with the handlers of the nodes, and one with a handler that does not exist.
func testRuntimeClasses(t *testing.T) {
	s := newSpace(t)
	handlers := handlers()
	for _, handler := range handlers {
		class := s.name + "-" + handler
		s.apply(fmt.Sprintf(`{"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": %q}, "handler": %q,
"overhead": {"podFixed": {"memory": "16Mi", "cpu": "10m"}}}`, class, handler))
		s.deleteLater("runtimeclass", class)
		s.apply(sleeper(handler, "node1", fmt.Sprintf(`"runtimeClassName": %q`, class), `"resources": {"limits": {"cpu": "500m", "memory": "64Mi"}}`))
	}
	missing := s.name + "-missing"
	s.apply(fmt.Sprintf(`{"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": %q}, "handler": "missing"}`, missing))
	s.deleteLater("runtimeclass", missing)
	s.apply(sleeper("missing", "node1", fmt.Sprintf(`"runtimeClassName": %q`, missing), ""))
	for _, handler := range handlers {
		s.ready(handler)
		s.want("command in a pod of "+handler, s.sh(handler, "hostname"), handler)
		s.want("overhead", s.pod(handler).Spec.Overhead.Memory().String(), "16Mi")
		s.want("memory limit of the pod with its overhead", suite.Nodes[0].memoryLimit(s, handler), fmt.Sprint((64+16)<<20))
		out, err := suite.Nodes[0].Machine.Run(t.Context(), "crictl", "pods", "--name", "^"+handler+"$", "--namespace", s.name, "-o", "json")
		if err != nil || !strings.Contains(out, fmt.Sprintf(`"runtimeHandler": %q`, handler)) {
			t.Errorf("handler of pod %s: %v: %s", handler, err, out)
		}
	}
	if slices.Contains(handlers, "runsc") {
		if out := s.sh("runsc", "dmesg"); !strings.Contains(out, "gVisor") {
			t.Errorf("messages of the kernel in a pod of runsc: %s, want messages of gVisor", out)
		}
	}
	eventually(t, 30*time.Second, func() error {
		if out := s.kubectl("get", "events", "--field-selector=involvedObject.name=missing"); !strings.Contains(out, "missing") || !strings.Contains(out, "FailedCreatePodSandBox") {
			return fmt.Errorf("events of a pod with an unknown handler: %s", out)
		}
		return nil
	})
}

// memoryLimit returns the memory limit of the cgroup of a pod on the node in bytes. The kubelet creates the cgroup.
func (n *Node) memoryLimit(s space, pod string) string {
	s.Helper()
	dirs, err := findCgroups(n.cgroup())
	if err != nil {
		s.Fatal(err)
	}
	uid := string(s.pod(pod).UID)
	for _, dir := range dirs {
		if name := strings.ReplaceAll(filepath.Base(dir), "_", "-"); name != "pod"+uid && name != "kubepods-pod"+uid+".slice" {
			continue
		}
		for _, file := range []string{"memory.max", "memory.limit_in_bytes"} {
			if text, err := os.ReadFile(filepath.Join(dir, file)); err == nil {
				return strings.TrimSpace(string(text))
			}
		}
	}
	s.Errorf("pod %s has no cgroup with a memory limit on %s", pod, n.Name)
	return ""
}

// handlers returns runc, and crun and runsc if the host has them.
func handlers() []string {
	found := []string{"runc"}
	for _, name := range []string{"crun", "runsc"} {
		if _, err := exec.LookPath(name); err == nil {
			found = append(found, name)
		}
	}
	return found
}

// deleteLater deletes an object without a namespace when the test ends.
func (s space) deleteLater(kind, name string) {
	s.Cleanup(func() {
		if _, err := suite.Kubectl(context.Background(), "delete", kind, name); err != nil {
			s.Error(err)
		}
	})
}

// testUserNamespace runs pods with user namespaces, which have different ids on the host, and volumes.
func testUserNamespace(t *testing.T) {
	if ok, err := harness.MapsTmpfs(); err != nil || !ok {
		t.Skipf("the kernel does not map the ids of tmpfs mounts (Linux 6.3): %v", err)
	}
	s := newSpace(t)
	s.apply(`{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"key": "one"}}`)
	for _, name := range []string{"first", "second"} {
		s.apply(sleeper(name, "node2", `"hostUsers": false, "volumes": [{"name": "settings", "configMap": {"name": "settings"}}, {"name": "disk", "emptyDir": {}}]`,
			`"volumeMounts": [{"name": "settings", "mountPath": "/settings"}, {"name": "disk", "mountPath": "/disk"}]`))
	}
	s.ready("first", "second")
	var ids []string
	for _, name := range []string{"first", "second"} {
		ids = append(ids, strings.Fields(s.sh(name, "cat /proc/self/uid_map"))[1])
		s.want("file in "+name, s.sh(name, "id -u; cat /settings/key; echo; stat -c %u /settings/key; echo x >/disk/file; stat -c %u /disk/file"), "0\none\n0\n0")
	}
	if ids[0] == ids[1] || ids[0] == "0" {
		t.Errorf("first ids of the pods on the host: %v, want different ones that are not 0", ids)
	}
}

// testSeccomp checks the seccomp profiles of the runtime and of the node.
func testSeccomp(t *testing.T) {
	s := newSpace(t)
	profile := `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}`
	if _, err := suite.Nodes[0].Machine.Run(t.Context(), "sh", "-c", "mkdir -p /var/lib/kubelet/seccomp && echo '"+profile+"' >/var/lib/kubelet/seccomp/no-mkdir.json"); err != nil {
		t.Fatal(err)
	}
	seccomp := func(fields string) string { return `"securityContext": {"seccompProfile": {` + fields + `}}` }
	s.apply(
		sleeper("default", "node1", "", ""), // the kubelet has seccompDefault
		sleeper("unconfined", "node1", "", seccomp(`"type": "Unconfined"`)),
		sleeper("local", "node1", "", seccomp(`"type": "Localhost", "localhostProfile": "no-mkdir.json"`)),
		sleeper("absent", "node1", "", seccomp(`"type": "Localhost", "localhostProfile": "absent.json"`)),
	)
	s.ready("default", "unconfined", "local")
	for pod, want := range map[string]string{"default": "2", "unconfined": "0", "local": "2"} {
		s.want("seccomp mode of "+pod, s.sh(pod, "awk '$1 == \"Seccomp:\" { print $2 }' /proc/1/status"), want)
	}
	if out, err := s.trySh("local", "mkdir /new"); err == nil {
		t.Errorf("mkdir with a profile that forbids it: %s", out)
	}
	s.sh("unconfined", "mkdir /new")
	eventually(t, 30*time.Second, func() error {
		if out := s.kubectl("get", "pod", "absent", "-o", "jsonpath={.status.containerStatuses[0].state.waiting}"); !strings.Contains(out, "absent.json") {
			return fmt.Errorf("state of a pod with a missing profile: %s", out)
		}
		return nil
	})
}

// testProbes checks that a failing liveness probe restarts the container, with its exit code in the status.
func testProbes(t *testing.T) {
	s := newSpace(t)
	s.apply(sleeper("sick", "", "", fmt.Sprintf(`"livenessProbe": {"exec": {"command": ["test", "!", "-e", "/sick"]}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": %d}`,
		harness.PatienceSeconds(1))))
	s.ready("sick")
	s.sh("sick", "touch /sick")
	eventually(t, 60*time.Second, func() error {
		status := s.pod("sick").Status.ContainerStatuses[0]
		if status.RestartCount == 0 || status.State.Running == nil {
			return errors.New("the container was not restarted")
		}
		if status.LastTerminationState.Terminated == nil {
			return fmt.Errorf("last state: %+v", status.LastTerminationState)
		}
		return nil
	})
	if phase := s.pod("sick").Status.Phase; phase != corev1.PodRunning {
		t.Errorf("phase of the pod: %s", phase)
	}
}

// testPodDNS checks the DNS configuration, host aliases, and the name of a pod.
func testPodDNS(t *testing.T) {
	s := newSpace(t)
	s.apply(sleeper("named", "", `"hostname": "given", "subdomain": "sub", "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["alias"]}],
"dnsConfig": {"searches": ["example.test"], "options": [{"name": "ndots", "value": "3"}]}`, ""))
	s.ready("named")
	s.want("name", s.sh("named", "hostname"), "given")
	if out := s.sh("named", "cat /etc/hosts"); !strings.Contains(out, "192.0.2.7\talias") || !strings.Contains(out, "given.sub."+s.name+".svc."+dnsDomain) {
		t.Errorf("/etc/hosts: %s", out)
	}
	out := s.sh("named", "cat /etc/resolv.conf")
	for _, part := range []string{"nameserver " + dnsAddress4, s.name + ".svc." + dnsDomain, "example.test", "ndots:3"} {
		if !strings.Contains(out, part) {
			t.Errorf("/etc/resolv.conf lacks %q: %s", part, out)
		}
	}
}

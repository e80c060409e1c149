package kubelet

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// fullPod returns a pod with all fields that pods commonly have.
func fullPod(host string) *corev1.Pod {
	always := corev1.ContainerRestartPolicyAlways
	work := corev1.VolumeMount{Name: "work", MountPath: "/shared"}

	first := sh("first", "id -u > /shared/first")
	first.VolumeMounts = []corev1.VolumeMount{work}
	side := sh("side", "until [ -e /shared/app ]; do usleep 10000; done; echo the app is there; exec sleep 100000")
	side.RestartPolicy = &always
	side.VolumeMounts = []corev1.VolumeMount{work}

	app := sh("app", "touch /shared/app; mkdir /shared/www; echo page > /shared/www/index.html; exec busybox httpd -f -p 8080 -h /shared/www")
	app.Env = []corev1.EnvVar{env("POD_IP", "status.podIP"), env("POD_NAME", "metadata.name"), {Name: "PLAIN", Value: "a b"}}
	app.Ports = []corev1.ContainerPort{{ContainerPort: 8080, HostPort: 18080}}
	app.LivenessProbe = execProbe("test -e /shared/app")
	app.ReadinessProbe = httpProbe("/", 8080)
	app.Lifecycle = &corev1.Lifecycle{PostStart: execHook("echo started > /host/poststart"), PreStop: execHook("echo stopping > /host/prestop")}
	app.VolumeMounts = []corev1.VolumeMount{work, {Name: "memory", MountPath: "/memory"}, {Name: "host", MountPath: "/host"}}
	app.Resources = corev1.ResourceRequirements{
		Requests: amounts("cpu", "100m", "memory", "32Mi"), Limits: amounts("cpu", "500m", "memory", "64Mi"),
	}
	app.SecurityContext = &corev1.SecurityContext{
		RunAsUser: ptr(int64(1000)), RunAsGroup: ptr(int64(2000)), RunAsNonRoot: ptr(true),
		ReadOnlyRootFilesystem: ptr(true), AllowPrivilegeEscalation: ptr(false),
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_BIND_SERVICE"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	other := sh("other", "until wget -q -O- http://127.0.0.1:8080/; do usleep 100000; done; touch /reached; exec sleep 100000")
	other.ReadinessProbe = execProbe("test -e /reached")

	p := newPod("full", app, other)
	p.Spec.InitContainers = []corev1.Container{first, side}
	p.Spec.Hostname = "full-host"
	p.Spec.SecurityContext = &corev1.PodSecurityContext{
		FSGroup: ptr(int64(3000)), SupplementalGroups: []int64{4000},
		Sysctls: []corev1.Sysctl{{Name: "net.ipv4.ip_local_port_range", Value: "20000 30000"}},
	}
	p.Spec.Volumes = []corev1.Volume{
		emptyDir("work", corev1.EmptyDirVolumeSource{}),
		emptyDir("memory", corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: ptr(amounts("memory", "16Mi")["memory"])}),
		hostPath("host", host),
	}
	return p
}

func testFullPod(t *testing.T, n *node) {
	host := n.kubelet.path("host")
	if err := os.Mkdir(host, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(host, 0o777); err != nil {
		t.Fatal(err)
	}
	p := n.runPod(t, fullPod(host))
	t.Run("order of containers", func(t *testing.T) { checkOrder(t, n, p) })
	t.Run("inside", func(t *testing.T) { checkInside(t, n, p) })
	t.Run("outside", func(t *testing.T) { checkOutside(t, n, p) })
	t.Run("host port", func(t *testing.T) { checkHostPort(t) })
	t.Run("volumes", func(t *testing.T) { checkVolumes(t, n, host) })
}

func checkOrder(t *testing.T, n *node, p *corev1.Pod) {
	first, side, app := status(p, "first"), status(p, "side"), status(p, "app")
	if s := first.State.Terminated; s == nil || s.ExitCode != 0 || s.Reason != "Completed" {
		t.Errorf("state of the init container: %+v", first.State)
	}
	if side.State.Running == nil || app.State.Running == nil {
		t.Fatalf("sidecar: %+v, app: %+v", side.State, app.State)
	}
	if app.State.Running.StartedAt.Before(&side.State.Running.StartedAt) {
		t.Error("the sidecar was started after the app")
	}
	if got := n.logs(t, container{"full", "side"}, nil); got != "the app is there\n" {
		t.Errorf("log of the sidecar: got %q", got)
	}
	if got := n.logs(t, container{"full", "other"}, nil); !strings.HasSuffix(got, "page\n") {
		t.Errorf("the other container did not reach the app on loopback: log %q", got)
	}
	for _, s := range p.Status.ContainerStatuses {
		if s.RestartCount != 0 || !strings.HasPrefix(s.ImageID, "registry.k8s.io/e2e-test-images/busybox@sha256:") || s.Image != busybox {
			t.Errorf("container %s: %d restarts, image %q, %q", s.Name, s.RestartCount, s.Image, s.ImageID)
		}
	}
}

func checkInside(t *testing.T, n *node, p *corev1.Pod) {
	app := container{"full", "app"}
	if len(p.Status.PodIPs) != 1 {
		t.Fatalf("addresses of the pod: got %v", p.Status.PodIPs)
	}
	for script, want := range map[string]string{
		"id -u":                              "1000",
		"id -g":                              "2000",
		"hostname":                           "full-host",
		"echo $POD_NAME $POD_IP":             "full-" + nodeName + " " + p.Status.PodIP,
		`echo "$PLAIN"`:                      "a b",
		"cat /host/poststart":                "started",
		"touch /x 2>&1; test -e /x; echo $?": "touch: /x: Read-only file system\n1",
		"cat /proc/sys/net/ipv4/ip_local_port_range | tr '\\t' ' '": "20000 30000",
		"ip -o -4 addr show eth0 | awk '{print $4}'":                p.Status.PodIP + "/16",
		"grep -c . /etc/resolv.conf >/dev/null && echo yes":         "yes",
		"grep full-host /etc/hosts":                                 p.Status.PodIP + "\tfull-host",
	} {
		if got := n.exec(t, app, script); got != want {
			t.Errorf("%s: got %q, want %q", script, got, want)
		}
	}
	if groups := strings.Fields(n.exec(t, app, "id -G")); len(groups) != 3 {
		t.Errorf("groups: got %v, want 2000, 3000 and 4000", groups)
	}
	// Each container has its own root file system and PID namespace, and the network of the pod.
	if got := n.exec(t, container{"full", "other"}, "id -u; test -e /shared || echo own; netstat -lnt 2>/dev/null | grep -c :8080"); got != "0\nown\n1" {
		t.Errorf("user, root file system and network of the other container: got %q", got)
	}
}

func checkOutside(t *testing.T, n *node, p *corev1.Pod) {
	pid := n.pid(t, status(p, "app").ContainerID)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.Join(strings.Fields(value), " ")
	}
	for name, want := range map[string]string{
		"Uid": "1000 1000 1000 1000", "Gid": "2000 2000 2000 2000",
		"CapBnd": "0000000000000400", "CapEff": "0000000000000000", "CapPrm": "0000000000000000",
		"NoNewPrivs": "1", "Seccomp": "2",
	} {
		if fields[name] != want {
			t.Errorf("%s of the app: got %s, want %s", name, fields[name], want)
		}
	}
	for _, c := range []struct{ controller, v1, v2, want1, want2 string }{
		{"memory", "memory.limit_in_bytes", "memory.max", "67108864", "67108864"},
		{"cpu", "cpu.cfs_quota_us", "cpu.max", "50000", "50000 100000"},
	} {
		got, err := cgroupFile(pid, c.controller, c.v1, c.v2)
		if err != nil || got != c.want1 && got != c.want2 {
			t.Errorf("%s or %s: got %q (error %v), want %s", c.v1, c.v2, got, err, c.want2)
		}
	}
	adj, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
	if err != nil {
		t.Fatal(err)
	}
	if score, _ := strconv.Atoi(strings.TrimSpace(string(adj))); score < 3 || score > 999 {
		t.Errorf("oom_score_adj of a burstable pod: got %s", adj)
	}
	lines, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if want := n.kubelet.cgroup.burstable(string(p.UID)) + "/"; err != nil || !strings.Contains(string(lines), want) {
		t.Errorf("cgroup of the app: want one below %s (error %v), got %s", want, err, lines)
	}
}

func checkHostPort(t *testing.T) {
	for _, address := range []string{"127.0.0.1", nodeIP} {
		answer, err := http.Get("http://" + address + ":18080/")
		if err != nil {
			t.Error(err)
			continue
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", address, answer.Status)
		}
	}
}

func checkVolumes(t *testing.T, n *node, host string) {
	app := container{"full", "app"}
	if got := n.exec(t, app, "grep ' /memory ' /proc/mounts | cut -d' ' -f3; df -k /memory | awk 'END {print $2}'"); got != "tmpfs\n16384" {
		t.Errorf("volume in memory: got %q", got)
	}
	if got := n.exec(t, app, "stat -c %g /shared /memory; cat /shared/first"); got != "3000\n3000\n0" {
		t.Errorf("groups of the volumes and user of the init container: got %q", got)
	}
	n.exec(t, app, "echo inside > /host/file")
	b, err := os.ReadFile(filepath.Join(host, "file"))
	if err != nil || string(b) != "inside\n" {
		t.Errorf("file of the app on the host: got %q (error %v)", b, err)
	}
	if got := n.exec(t, container{"full", "side"}, "echo from side > /shared/side; id -u"); got != "0" {
		t.Errorf("user of the sidecar: got %s", got)
	}
	if got := n.exec(t, app, "cat /shared/side"); got != "from side" {
		t.Errorf("file of the sidecar: got %q", got)
	}
}

package kubelet

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/criserver/criserver/test/harness"
)

// userPod returns a pod with a user namespace and every kind of volume that needs no
// API server.
func userPod(host string) *corev1.Pod {
	mounts := []corev1.VolumeMount{
		{Name: "work", MountPath: "/shared"},
		{Name: "memory", MountPath: "/memory"},
		{Name: "host", MountPath: "/host"},
		{Name: "work", MountPath: "/part", SubPath: "part"},
	}
	root := sh("root", "echo root > /shared/root; exec sleep 100000")
	root.VolumeMounts = mounts
	root.ReadinessProbe = execProbe("test -s /shared/root")
	root.LivenessProbe = execProbe("id -u")
	user := sh("user", "echo gone > /dev/termination-log; cat /proc/self/uid_map > /dev/stdout; echo user > /shared/user; exec sleep 100000")
	user.VolumeMounts = mounts
	user.ReadinessProbe = execProbe("test -s /shared/user")
	user.SecurityContext = &corev1.SecurityContext{RunAsUser: ptr(int64(1000)), RunAsGroup: ptr(int64(2000))}
	p := newPod("users", root, user)
	p.Spec.HostUsers = ptr(false)
	p.Spec.SecurityContext = &corev1.PodSecurityContext{
		FSGroup: ptr(int64(3000)), Sysctls: []corev1.Sysctl{{Name: "kernel.shm_rmid_forced", Value: "1"}},
	}
	p.Spec.Volumes = []corev1.Volume{
		emptyDir("work", corev1.EmptyDirVolumeSource{}),
		emptyDir("memory", corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}),
		hostPath("host", host),
	}
	return p
}

func testUserNamespace(t *testing.T, n *node) {
	if ok, err := harness.MapsTmpfs(); err != nil {
		t.Fatal(err)
	} else if !ok {
		t.Skip("user namespaces of pods need id-mapped tmpfs mounts, which need Linux 6.3")
	}
	host := n.kubelet.path("users-host")
	if err := os.Mkdir(host, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(n.kubelet.dir, 0o711); err != nil {
		t.Fatal(err)
	}
	p := n.runPod(t, userPod(host))
	root, user := container{"users", "root"}, container{"users", "user"}
	ids := strings.Fields(n.exec(t, root, "cat /proc/self/uid_map"))
	if len(ids) != 3 || ids[0] != "0" || ids[1] == "0" || ids[2] != "65536" {
		t.Fatalf("uid_map: %v", ids)
	}
	first, err := strconv.Atoi(ids[1])
	if err != nil {
		t.Fatal(err)
	}
	for name, id := range map[string]int{"root": first, "user": first + 1000} {
		info, err := os.Stat(fmt.Sprintf("/proc/%d", n.pid(t, status(p, name).ContainerID)))
		if err != nil {
			t.Fatal(err)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != id {
			t.Errorf("owner of %s on the host: got %d, want %d", name, st.Uid, id)
		}
	}
	for script, want := range map[string]string{
		"id -u": "1000",
		"stat -c %u:%g / /etc/hosts /etc/hostname /dev/termination-log /dev/shm": "0:0\n0:0\n0:0\n0:0\n0:0",
		"stat -c %u:%g /shared/user":           "1000:3000",
		"stat -c %g /shared /memory /part":     "3000\n3000\n3000",
		"cat /shared/root":                     "root",
		"cat /proc/sys/kernel/shm_rmid_forced": "1",
		"grep -c users /etc/hosts":             "1",
	} {
		if got := n.exec(t, user, script); got != want {
			t.Errorf("%s: got %q, want %q", script, got, want)
		}
	}
	eventually(t, 10*time.Second, func() error {
		if got := n.logs(t, user, nil); !strings.Contains(got, ids[1]) {
			return fmt.Errorf("log: got %q", got)
		}
		return nil
	})
	// The hostPath volume is id-mapped, so files have the same owners in the pod and on the host.
	n.exec(t, root, "echo x > /host/file && chown 5 /host/file")
	info, err := os.Stat(filepath.Join(host, "file"))
	if err != nil {
		t.Fatal(err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != 5 {
		t.Errorf("owner of the written file: got %d, want 5", st.Uid)
	}
	if status(p, "root").RestartCount != 0 || status(p, "user").RestartCount != 0 {
		t.Errorf("container was restarted: %+v", p.Status.ContainerStatuses)
	}
}

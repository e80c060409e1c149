package system

import (
	"fmt"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// hostNetworkUserPod returns a pod with hostNetwork: true and hostUsers: false, like the kubelet.
func hostNetworkUserPod(name string) *cri.PodSandboxConfig {
	c := userPodConfig(name)
	c.Hostname = ""
	c.Linux.SecurityContext.NamespaceOptions.Network = cri.NamespaceMode_NODE
	c.Linux.SecurityContext.Privileged = true // allows containers to be privileged
	return c
}

func TestUserNamespaceWithHostNetwork(t *testing.T) {
	n := handlersNode(t, "unshost", 186)
	n.needUserNamespaces(t)
	st, err := n.RuntimeService.Status(t.Context(), &cri.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	if !st.GetFeatures().GetUserNamespacesHostNetwork() {
		t.Fatalf("the daemon does not report the feature: %v", st.GetInfo())
	}
	for _, h := range st.GetRuntimeHandlers() {
		if h.GetName() == "" || !h.GetFeatures().GetUserNamespaces() {
			continue
		}
		t.Run(h.GetName(), func(t *testing.T) { n.checkHostNetworkUserPod(t, h.GetName()) })
	}
}

func (n *node) checkHostNetworkUserPod(t *testing.T, handler string) {
	p := n.runPodFor(t, handler, hostNetworkUserPod("host"+handler))
	defer n.RemovePod(t, p.ID)
	wire(t, "", "uh0"+handler, "", "uh1"+handler)
	id := n.run(t, p, "c", "sleep", "1000")
	if got := strings.Fields(n.Exec(t, id, "cat", "/proc/self/uid_map")); strings.Join(got, " ") != fmt.Sprintf("0 %d 65536", firstID) {
		t.Errorf("uid_map: got %q, want container ID 0, host ID %d, length 65536", got, firstID)
	}
	if got := n.Exec(t, id, "cat", "/proc/net/dev"); !strings.Contains(got, "uh0"+handler+":") {
		t.Errorf("links in the container, want those of the host:\n%s", got)
	}
	for _, line := range []string{
		"echo x > /dev/shm/x && cat /dev/shm/x", // the files of the pod belong to root of the container
		"test -d /sys/class/net/lo && test -d /dev/mqueue && test -r /etc/resolv.conf && echo x",
		"mkdir /sys/x 2>/dev/null || ip link set lo down 2>/dev/null || hostname x 2>/dev/null || echo x", // no rights over the host
	} {
		if got := n.Exec(t, id, "sh", "-c", line); got != "x" {
			t.Errorf("%s: got %q, want x", line, got)
		}
	}
	for line := range strings.Lines(n.Exec(t, id, "cat", "/proc/self/mountinfo")) {
		f := strings.Fields(line)
		mountPoint := f[4]
		if strings.HasPrefix(mountPoint, "/sys/fs/cgroup") {
			continue // the cgroups of the container, which hide those of the host
		}
		if (mountPoint == "/sys" || strings.HasPrefix(mountPoint, "/sys/")) && !strings.HasPrefix(f[5], "ro") {
			t.Errorf("the mount %s is writable: %s", mountPoint, line)
		}
	}
	local, stop := n.forward(t, "SPDY", p.ID, page(t, "", "127.0.0.1:0"))
	if _, err := get(t, local); err != nil {
		t.Errorf("page through a port forward: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	privileged := containerConfig(p, "privileged", busybox, "sleep", "1000")
	privileged.Linux.SecurityContext.Privileged = true
	c := n.CreateContainer(t, p, privileged)
	n.StartContainer(t, c)
	n.Kill()
	n.restart(t)
	if got := n.Exec(t, id, "id", "-u"); got != "0" {
		t.Errorf("user after a restart of the daemon: got %s, want 0", got)
	}
}

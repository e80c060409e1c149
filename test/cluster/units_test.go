package cluster

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestUnits checks on hosts with systemd and cgroup v2, where each node has a systemd, that the kubelet and the runtime
// create a slice for a pod and a scope for its container: the limits of the container are properties of the scope,
// also after an in-place resize and after systemd has read its configuration again, the scope survives a killed
// criserver, and systemd has no units of deleted pods.
func TestUnits(t *testing.T) {
	n, other := suite.Nodes[0], suite.Nodes[1]
	if !n.systemd() {
		t.Skip("the nodes have no systemd, because the host has no cgroup v2 with systemd")
	}
	s := newSpace(t)
	s.apply(sleeper("pod", n.Name, "", `"resources": {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}`))
	s.ready("pod")
	_, id, _ := strings.Cut(s.pod("pod").Status.ContainerStatuses[0].ContainerID, "://")
	scope := "criserver-" + id + ".scope"
	slice := "kubepods-burstable-pod" + strings.ReplaceAll(string(s.pod("pod").UID), "-", "_") + ".slice"

	s.want("state and slice of the scope", s.unit(n, scope, "ActiveState,Slice"), "active "+slice)
	s.want("state and parent of the slice", s.unit(n, slice, "ActiveState,Slice"), "active kubepods-burstable.slice")
	s.want("limits of the scope", s.unit(n, scope, "MemoryMax,CPUQuotaPerSecUSec"), fmt.Sprintf("%d 200ms", 64<<20))
	s.want("limits of the slice", s.unit(n, slice, "MemoryMax,CPUQuotaPerSecUSec"), fmt.Sprintf("%d 200ms", 64<<20))
	s.want("scope on the other node", s.unit(other, scope, "LoadState"), "not-found")

	s.kubectl("patch", "pod", "pod", "--subresource", "resize", "-p",
		`{"spec": {"containers": [{"name": "main", "resources": {"limits": {"cpu": "400m", "memory": "96Mi"}}}]}}`)
	for _, unit := range []string{scope, slice} {
		eventually(t, 30*time.Second, func() error {
			if got, want := s.unit(n, unit, "MemoryMax,CPUQuotaPerSecUSec"), fmt.Sprintf("%d 400ms", 96<<20); got != want {
				return fmt.Errorf("limits of %s after the resize: %s, want %s", unit, got, want)
			}
			return nil
		})
	}
	if _, err := n.Machine.Run(t.Context(), "systemctl", "daemon-reload"); err != nil {
		t.Fatal(err)
	}
	s.want("limits in the container after a reload", s.sh("pod", limits), fmt.Sprintf("%d\n40000", 96<<20))

	if err := errors.Join(n.StopService(t.Context(), Runtime, syscall.SIGKILL), n.StartRuntime(t.Context())); err != nil {
		t.Fatal(err)
	}
	s.want("scope after criserver was killed", s.unit(n, scope, "ActiveState"), "active")
	s.kubectl("delete", "pod", "pod")
	for _, unit := range []string{scope, slice} {
		eventually(t, 60*time.Second, func() error {
			if got := s.unit(n, unit, "LoadState"); got != "not-found" {
				return fmt.Errorf("%s of the deleted pod: %s", unit, got)
			}
			return nil
		})
	}
}

// unit returns properties of a unit of a node, separated by spaces. The names of the properties are separated by
// commas.
func (s space) unit(n *Node, name, properties string) string {
	s.Helper()
	var values []string
	for property := range strings.SplitSeq(properties, ",") {
		out, err := n.Machine.Run(s.Context(), "systemctl", "show", "--value", "--property="+property, name)
		if err != nil {
			s.Fatal(err)
		}
		values = append(values, strings.TrimSpace(out))
	}
	return strings.Join(values, " ")
}

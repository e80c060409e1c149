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

	"github.com/criserver/criserver/test/harness"
)

// podMounts are the directories below which pods have mounts.
var podMounts = []string{"/run/criserver/", "/var/lib/criserver/", "/var/lib/kubelet/pods/", "/run/netns/"}

// checkEmptyNodes deletes the pods of DNS, the last ones of the cluster, and waits until no node has objects of pods.
func checkEmptyNodes(ctx context.Context) error {
	if _, err := suite.Kubectl(ctx, "-n", "kube-system", "delete", "deployment", "coredns", "--wait=false"); err != nil {
		return err
	}
	return checkEmpty(ctx, suite.Nodes...)
}

// checkEmpty waits until no node has objects of pods. The kubelet removes sandboxes once a minute.
func checkEmpty(ctx context.Context, nodes ...*Node) error {
	var left []string
	for end := time.Now().Add(harness.Patience(120 * time.Second)); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		left = nil
		for _, n := range nodes {
			found, err := n.leftovers(ctx)
			if err != nil {
				return err
			}
			for _, what := range found {
				left = append(left, n.Name+": "+what)
			}
		}
		if len(left) == 0 {
			return nil
		}
	}
	return fmt.Errorf("leaks on the nodes:\n  %s", strings.Join(left, "\n  "))
}

// leftovers returns the objects of pods on a node that has no pods: sandboxes, containers, processes, mounts, links,
// network namespaces, cgroups, firewall rules, leases, and directories of volumes and logs.
func (n *Node) leftovers(ctx context.Context) ([]string, error) {
	commands := map[string]string{
		"sandbox":           "crictl pods -q",
		"container":         "crictl ps -aq",
		"process":           "ps -e -o args= | grep -E '^conmon (monitor|exec)' || true",
		"link":              "ip -o link show type veth | grep -v ' eth0@' | cut -d' ' -f2",
		"network namespace": "ls /run/netns 2>/dev/null",
		"firewall rule":     "nft list ruleset | grep -E '[0-9a-f]{64}|criserver-[0-9a-f]{8}' || true",
		"lease":             "find /run/criserver/ipam -type f -name '[0-9]*' 2>/dev/null",
		"volume directory":  "ls /var/lib/kubelet/pods",
		"log directory":     "ls /var/log/pods",
		"log link":          "ls /var/log/containers",
		"container layer":   "find /var/lib/criserver/rootfs -mindepth 1 -maxdepth 1 2>/dev/null",
	}
	var left []string
	for what, command := range commands {
		out, err := n.Machine.Run(ctx, "sh", "-c", command+"; true")
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(out) {
			left = append(left, what+" "+strings.TrimSpace(line))
		}
	}
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", n.Machine.Pid()))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(info)) {
		point := strings.Fields(line)[4]
		if slices.ContainsFunc(podMounts, func(dir string) bool { return strings.HasPrefix(point, dir) }) {
			left = append(left, "mount "+point)
		}
	}
	dirs, err := findCgroups(n.cgroup())
	for _, dir := range dirs {
		if base := filepath.Base(dir); strings.HasPrefix(base, "pod") && base != "pods" && base != "pods-monitors" || len(base) >= 64 {
			left = append(left, "cgroup "+dir)
		}
	}
	return left, err
}

// TestLeftovers checks that the search for leaks finds each kind of object of a running pod.
func TestLeftovers(t *testing.T) {
	s := newSpace(t)
	s.apply(web("web", "node1", `"volumes": [{"name": "disk", "emptyDir": {}}]`,
		`"volumeMounts": [{"name": "disk", "mountPath": "/disk"}], "ports": [{"containerPort": 80, "hostPort": 8090}]`))
	s.ready("web")
	found, err := suite.Nodes[0].leftovers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{
		"sandbox ", "container ", "process ", "link ", "network namespace ", "firewall rule ", "lease ", "volume directory ",
		"log directory ", "log link ", "container layer ", "mount ", "cgroup ",
	} {
		if !slices.ContainsFunc(found, func(what string) bool { return strings.HasPrefix(what, kind) }) {
			t.Errorf("the search finds no %sof a running pod", kind)
		}
	}
}

// hostObjects returns the mounts, links and nftables tables in the namespaces of the tests, which no cluster
// may change.
func hostObjects() (map[string]bool, error) {
	found := map[string]bool{}
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(info)) {
		found["mount "+strings.Fields(line)[4]] = true
	}
	for what, args := range map[string][]string{"link": {"ip", "-br", "link"}, "table": {"nft", "list", "tables"}} {
		out, err := exec.Command(args[0], args[1:]...).Output()
		if err != nil {
			return nil, fmt.Errorf("%v: %w", args, err)
		}
		for line := range strings.Lines(string(out)) {
			found[what+" "+strings.TrimSpace(line)] = true
		}
	}
	return found, nil
}

// checkHost checks that the stopped cluster has left nothing on the host. Other programs may have added
// mounts, links and tables in the meantime, so only those with names of a cluster are leaks.
func checkHost(before map[string]bool) error {
	after, err := hostObjects()
	if err != nil {
		return err
	}
	var left []string
	names := []string{filepath.Base(suite.Dir), "port-node", lanBridge, vxlanDevice, "kube-proxy"}
	for what := range after {
		if !before[what] && slices.ContainsFunc(names, func(name string) bool { return strings.Contains(what, name) }) {
			left = append(left, what)
		}
	}
	dirs, err := findCgroups(cgroupOf(suite.Name))
	left = append(left, dirs...)
	commands, globErr := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range commands {
		if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), suite.Dir) {
			left = append(left, fmt.Sprintf("process %s: %q", filepath.Dir(file), text))
		}
	}
	if _, err := os.Stat(suite.Dir); err == nil {
		left = append(left, suite.Dir)
	}
	if len(left) > 0 {
		err = fmt.Errorf("leaks on the host:\n  %s", strings.Join(left, "\n  "))
	}
	return errors.Join(err, globErr)
}

package system

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestNamespacesCommand compares the namespaces that the command shows with the namespaces of the
// processes.
func TestNamespacesCommand(t *testing.T) {
	n := newNode(t, "nscommand", 223)
	config := podConfig("spaces")
	config.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
	p := n.RunPod(t, config)
	first, second := n.run(t, p, "first", "sleep", "1000"), n.run(t, p, "second", "sleep", "1000")
	pids := []int{n.initPID(t, first), n.initPID(t, second)}
	code, stdout, stderr := n.command(t, "namespaces", "system/spaces", "-o", "json")
	var r struct {
		Pods []struct {
			Errors     []string
			Namespaces []struct {
				Kind, Inode string
				Host        bool
				Members     []struct {
					Name string
					Pid  int
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || code != 0 || len(r.Pods) != 1 || len(r.Pods[0].Errors) > 0 {
		t.Fatalf("namespaces: got exit code %d, %v, output %s%s; want one pod", code, err, stdout, stderr)
	}
	// Each process must be listed in its namespace of each kind.
	for _, kind := range []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"} {
		for _, pid := range pids {
			link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
			if err != nil {
				t.Fatalf("read the namespace %s of process %d: %v", kind, pid, err)
			}
			found := false
			for _, ns := range r.Pods[0].Namespaces {
				for _, m := range ns.Members {
					found = found || m.Pid == pid && kind+":["+ns.Inode+"]" == link
				}
			}
			if !found {
				t.Errorf("process %d: got %s, want it in %s", pid, stdout, link)
			}
		}
	}
	shared, own := 0, 0
	for _, ns := range r.Pods[0].Namespaces {
		switch {
		case ns.Kind == "pid" && len(ns.Members) == 3: // with the pause process
			shared++
		case ns.Kind == "mnt" && len(ns.Members) == 1 && !ns.Host:
			own++
		}
	}
	if shared != 1 || own < 2 {
		t.Errorf("got %d shared PID namespaces and %d mount namespaces in %s, want 1 and at least 2", shared, own, stdout)
	}
	if code, _, stderr = n.command(t, "namespaces", "system/none"); code != 1 || !strings.Contains(stderr, `no pod sandbox is named "system/none"`) {
		t.Errorf("missing pod: got exit code %d, %q, want 1 and the name", code, stderr)
	}
}

// TestCgroupCommand changes a limit behind the daemon's back.
func TestCgroupCommand(t *testing.T) {
	n := newNode(t, "cgcommand", 224)
	p := n.RunPod(t, podConfig("groups"))
	config := containerConfig(p, "limited", busybox, "sleep", "1000")
	config.Linux.Resources = &limits{CpuShares: 512, CpuQuota: 50000, CpuPeriod: 100000, MemoryLimitInBytes: 64 << 20}
	id := n.CreateContainer(t, p, config)
	n.StartContainer(t, id)
	code, stdout, stderr := n.command(t, "cgroup", "system/groups/limited")
	if code != 0 || strings.Contains(stdout, "DIFFERS") || !strings.Contains(stdout, "memory_limit_in_bytes=67108864") {
		t.Fatalf("cgroup: got exit code %d, output\n%s%s\nwant the limits without a difference", code, stdout, stderr)
	}
	file := cgroupPath(n.cgroupOf(t, id), "cpu/cpu.cfs_quota_us", "cpu.max")
	value := map[string]string{"cpu.cfs_quota_us": "40000", "cpu.max": "40000 100000"}[filepath.Base(file)]
	if err := os.WriteFile(file, []byte(value), 0o600); err != nil {
		t.Fatalf("change the quota: %v", err)
	}
	if code, stdout, stderr = n.command(t, "cgroup", id[:12]); code != 1 || strings.Count(stdout, "DIFFERS") != 1 {
		t.Errorf("cgroup after the change: got exit code %d, output\n%s%s\nwant 1 and one difference", code, stdout, stderr)
	}
	code, stdout, stderr = n.command(t, "top", "--count", "1", "--interval", "1s", "-o", "json")
	var pods []struct {
		Name       string
		Containers int
		Processes  int
	}
	if err := json.Unmarshal([]byte(stdout), &pods); err != nil || code != 0 || len(pods) != 1 || pods[0].Name != "groups" || pods[0].Containers != 1 || pods[0].Processes < 1 {
		t.Errorf("top: got exit code %d, %v, output %s%s; want the pod with one container", code, err, stdout, stderr)
	}
}

package system

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestLimitsOnTheUnifiedHierarchy runs the daemon with only the cgroup v2 hierarchy. On a
// machine with a hybrid layout it is the hierarchy with the remaining controllers, for
// example hugetlb.
func TestLimitsOnTheUnifiedHierarchy(t *testing.T) {
	if hugepages(0) == nil {
		t.Skip("the unified hierarchy of this machine has no hugetlb controller")
	}
	if _, err := os.Stat("/sys/kernel/mm/hugepages/hugepages-1048576kB"); err != nil {
		t.Skip("the processor has no huge pages of 1 GB: ", err)
	}
	n := makeNode("v2")
	n.Network = n.Bridge("csv2", "10.119.0.0/16")
	if !unifiedHost() {
		n.Command = "unshare --mount --propagation private sh -c 'mount -t cgroup2 none /sys/fs/cgroup && exec " + filepath.Join(suite.bin, "criserver") + " --config $HARNESS_DIR/config.toml'"
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatalf("start the daemon: %v", err)
	}
	t.Cleanup(func() { n.t = t; n.close() })
	if err := n.dial(n.Socket()); err != nil {
		t.Fatalf("connect to the daemon: %v", err)
	}
	n.Pull(t, busybox)
	n.RemovePod(t, n.RunPod(t, podConfig("first")).ID)
	n.takeBaseline(t)
	p := n.RunPod(t, podConfig("v2"))
	config := containerConfig(p, "c", busybox, "sleep", "1000")
	config.Linux.Resources = &limits{HugepageLimits: hugepages(4 << 20), Unified: map[string]string{"hugetlb.1GB.max": "1073741824"}, OomScoreAdj: 100}
	id := n.CreateContainer(t, p, config)
	n.StartContainer(t, id)
	root := "/sys/fs/cgroup/unified"
	if unifiedHost() {
		root = "/sys/fs/cgroup"
	}
	is := func(file, want string) {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(root, n.cgroupOf(t, id), file))
		if got := strings.TrimSpace(string(b)); err != nil || got != want {
			t.Errorf("%s: got %q, want %s (error %v)", file, got, want, err)
		}
	}
	is("hugetlb.2MB.max", "4194304")
	is("hugetlb.1GB.max", "1073741824")
	n.mustUpdate(t, id, &limits{Unified: map[string]string{"hugetlb.1GB.max": "2147483648"}})
	is("hugetlb.1GB.max", "2147483648")
	is("hugetlb.2MB.max", "4194304")
	n.mustUpdate(t, id, &limits{HugepageLimits: hugepages(8 << 20)})
	is("hugetlb.2MB.max", "8388608")
	is("hugetlb.2MB.rsvd.max", "8388608")
	if err := n.update(t, id, &limits{Unified: map[string]string{"hugetlb.1GB.max": "0", "hugetlb.no.such": "1"}}); err == nil {
		t.Error("update of a missing file succeeded, want an error")
	}
	is("hugetlb.1GB.max", "2147483648")
	if err := n.update(t, id, &limits{Unified: map[string]string{"cgroup.freeze": "1"}}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("update of cgroup.freeze: got error %v, want InvalidArgument", err)
	}
	if got := n.ContainerStatus(t, id).GetResources().GetLinux().GetUnified(); len(got) != 1 || got["hugetlb.1GB.max"] != "2147483648" {
		t.Errorf("status: got %v, want only hugetlb.1GB.max", got)
	}
}

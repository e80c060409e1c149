package pods

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cli/clitest"
	"github.com/criserver/criserver/internal/cli/command"
)

func TestNamespacesTable(t *testing.T) {
	web := &adminv1.NamespaceMember{Name: "web", ContainerId: "c1", Pid: 20}
	log := &adminv1.NamespaceMember{Name: "log", ContainerId: "c2", Pid: 30}
	pause := &adminv1.NamespaceMember{Name: "pause", Pid: 10}
	r := &adminv1.ListNamespacesResponse{Pods: []*adminv1.PodNamespaces{
		{
			Id: "0123456789abcdef", Name: "web", Namespace: "default", Ready: true,
			Namespaces: []*adminv1.Namespace{
				{Kind: "mnt", Inode: 4026532001, Members: []*adminv1.NamespaceMember{web}},
				{Kind: "mnt", Inode: 4026532002, Members: []*adminv1.NamespaceMember{log}},
				{Kind: "net", Inode: 4026532003, Path: "/run/netns/web", Members: []*adminv1.NamespaceMember{pause, web, log}},
				{Kind: "pid", Inode: 4026532004, Members: []*adminv1.NamespaceMember{pause}},
				{Kind: "uts", Inode: 4026531838, Host: true, Members: []*adminv1.NamespaceMember{web, log}},
			},
			UidMappings: []*adminv1.IDMapping{{Inside: 0, Outside: 100000, Length: 65536}, {Inside: 70000, Outside: 5, Length: 1}},
			GidMappings: []*adminv1.IDMapping{{Inside: 0, Outside: 200000, Length: 65536}},
		},
		{Id: "fedcba9876543210", Name: "old", Namespace: "default", Errors: []string{"net namespace of the pod: no such file"}},
	}}
	want := `pod default/web (0123456789abc)
KIND  INODE       SCOPE  PROCESSES                  PATH
mnt   4026532001  web    web(20)                    -
mnt   4026532002  log    log(30)                    -
net   4026532003  pod    pause(10) web(20) log(30)  /run/netns/web
pid   4026532004  pod    pause(10)                  -
uts   4026531838  host   web(20) log(30)            -
user ids: 0-65535 are 100000-165535 outside, 70000 are 5 outside
group ids: 0-65535 are 200000-265535 outside

pod default/old (fedcba9876543, not ready)
KIND  INODE  SCOPE  PROCESSES  PATH
error: net namespace of the pod: no such file
`
	if got := clitest.Table(t, func(tab *command.Table) { writeNamespaces(tab, r) }); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestCgroupTable(t *testing.T) {
	r := &adminv1.InspectCgroupResponse{
		ContainerId: "0123456789abcdef", Name: "web", PodName: "pod", PodNamespace: "default", Version: 2, Path: "/kubepods.slice/web.scope",
		Limits: []*adminv1.CgroupLimit{
			{File: "cpu.max", Value: "50000 100000", Requested: "cpu_quota=50000 cpu_period=100000", Expected: "50000 100000"},
			{File: "memory.max", Value: "max", Requested: "memory_limit_in_bytes=1048576", Expected: "1048576", Differs: true},
			{File: "pids.max", Value: "max"},
		},
		Usage: &adminv1.CgroupUsage{
			Cpu: durationpb.New(1500 * time.Microsecond), Periods: proto.Uint64(10), ThrottledPeriods: proto.Uint64(3), Throttled: durationpb.New(time.Second),
			Memory: 3 << 19, WorkingSet: 1000, Rss: 12 << 20, OomKills: proto.Uint64(2), Pids: 4,
			Devices: []*adminv1.CgroupDeviceIO{{Device: "/dev/vda", ReadBytes: 4096, ReadOperations: 1}},
		},
		Pressure: []*adminv1.CgroupPressure{{
			Resource: "cpu", Some: &adminv1.CgroupStall{Total: durationpb.New(time.Millisecond), Avg10: 12.5}, Full: &adminv1.CgroupStall{},
		}},
	}
	want := `container web of pod default/pod (0123456789abc)
cgroup v2 /kubepods.slice/web.scope

LIMIT       SET           REQUESTED                          EXPECTED
cpu.max     50000 100000  cpu_quota=50000 cpu_period=100000  50000 100000
memory.max  max           memory_limit_in_bytes=1048576      1048576 DIFFERS
pids.max    max           -                                  -

USAGE             VALUE
cpu time          1.5ms
throttled         3 of 10 periods, 1s
memory            1.50 MiB
working set       1000 B
anonymous memory  12.0 MiB
swap              0 B
OOM kills         2
tasks             4
I/O of /dev/vda   read 4.00 KiB in 1 operations, written 0 B in 0 operations

PRESSURE         10 s    60 s   300 s  TOTAL
cpu, some tasks  12.50%  0.00%  0.00%  1ms
cpu, all tasks   0.00%   0.00%  0.00%  0s
`
	if got := clitest.Table(t, func(tab *command.Table) { writeCgroup(tab, r) }); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestUsageBetween checks the rates of pods, and that a pod without an earlier sample is left
// out.
func TestUsageBetween(t *testing.T) {
	value := func(n uint64) *cri.UInt64Value { return &cri.UInt64Value{Value: n} }
	sample := func(name string, at time.Duration, cpu, received uint64) *cri.PodSandboxStats {
		return &cri.PodSandboxStats{
			Attributes: &cri.PodSandboxAttributes{Id: name, Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: "default"}},
			Linux: &cri.LinuxPodSandboxStats{
				Cpu:     &cri.CpuUsage{Timestamp: int64(at), UsageCoreNanoSeconds: value(cpu)},
				Memory:  &cri.MemoryUsage{WorkingSetBytes: value(7), UsageBytes: value(9)},
				Network: &cri.NetworkUsage{Timestamp: int64(at), DefaultInterface: &cri.NetworkInterfaceUsage{RxBytes: value(received)}},
				Process: &cri.ProcessUsage{ProcessCount: value(3)}, Containers: []*cri.ContainerStats{{}, {}},
			},
		}
	}
	before := map[string]*cri.PodSandboxStats{"b": sample("b", time.Second, 1e9, 1000), "a": sample("a", time.Second, 5e9, 0), "gone": sample("gone", 0, 0, 0)}
	now := map[string]*cri.PodSandboxStats{"b": sample("b", 3*time.Second, 2e9, 5000), "a": sample("a", 3*time.Second, 1e9, 0), "new": sample("new", 0, 0, 0)}
	list := usageBetween(before, now)
	if len(list) != 2 || list[0].Name != "a" || list[1].Name != "b" {
		t.Fatalf("got %d pods, want a and b", len(list))
	}
	if got := *list[1]; got.CPUMillicores != 500 || got.ReceivedBytesPerSecond != 2000 || got.WorkingSetBytes != 7 || got.Processes != 3 || got.Containers != 2 {
		t.Errorf("pod b: got %+v, want 500 millicores and 2000 bytes per second", got)
	}
	if got := list[0].CPUMillicores; got != 0 {
		t.Errorf("pod whose counter was reset: got %v millicores, want 0", got)
	}
}

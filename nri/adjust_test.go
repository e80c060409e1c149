package nri

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
)

func TestApplyAdjustment(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*api.ContainerAdjustment)
		got    func(*specs.Spec, *Adjustment) any
		want   any
	}{
		"env set, added, removed": {
			func(a *api.ContainerAdjustment) { a.RemoveEnv("PATH"); a.AddEnv("B", "2"); a.AddEnv("A", "9") },
			func(s *specs.Spec, _ *Adjustment) any { return s.Process.Env },
			[]string{"A=9", "B=2"},
		},
		"env removed and set again": {
			func(a *api.ContainerAdjustment) { a.RemoveEnv("A"); a.AddEnv("A", "new") },
			func(s *specs.Spec, _ *Adjustment) any { return s.Process.Env },
			[]string{"PATH=/bin", "A=new"},
		},
		"args": {
			func(a *api.ContainerAdjustment) { a.SetArgs([]string{"echo", "x"}) },
			func(s *specs.Spec, _ *Adjustment) any { return s.Process.Args },
			[]string{"echo", "x"},
		},
		"annotations": {
			func(a *api.ContainerAdjustment) { a.RemoveAnnotation("removed"); a.AddAnnotation("k", "v") },
			func(s *specs.Spec, _ *Adjustment) any { return s.Annotations },
			map[string]string{"k": "v"},
		},
		"mounts sorted by depth": {
			func(a *api.ContainerAdjustment) {
				a.RemoveMount("/proc")
				a.AddMount(&api.Mount{Destination: "/data", Type: "bind", Source: "/y", Options: []string{"rbind", "rslave"}})
			},
			func(s *specs.Spec, _ *Adjustment) any {
				return []string{s.Mounts[0].Destination, s.Mounts[1].Destination, s.Linux.RootfsPropagation}
			},
			[]string{"/data", "/data/in", "rslave"},
		},
		"hooks": {
			func(a *api.ContainerAdjustment) {
				a.AddHooks(&api.Hooks{CreateRuntime: []*api.Hook{{Path: "/a"}}, Poststop: []*api.Hook{{Path: "/b"}}})
			},
			func(s *specs.Spec, _ *Adjustment) any {
				return []string{s.Hooks.CreateRuntime[0].Path, s.Hooks.Poststop[0].Path}
			},
			[]string{"/a", "/b"},
		},
		"rlimits": {
			func(a *api.ContainerAdjustment) { a.AddRlimit("RLIMIT_CORE", 5, 4) },
			func(s *specs.Spec, _ *Adjustment) any { return s.Process.Rlimits },
			[]specs.POSIXRlimit{{Type: "RLIMIT_CORE", Hard: 5, Soft: 4}},
		},
		"device with its cgroup rule": {
			func(a *api.ContainerAdjustment) {
				a.AddDevice(&api.LinuxDevice{Path: "/dev/x", Type: "c", Major: 10, Minor: 200})
			},
			func(s *specs.Spec, _ *Adjustment) any {
				r := s.Linux.Resources.Devices[1]
				return []any{s.Linux.Devices[0].Path, r.Allow, *r.Major, *r.Minor, r.Access}
			},
			[]any{"/dev/x", true, int64(10), int64(200), "rw"},
		},
		"seccomp with errno": {
			func(a *api.ContainerAdjustment) {
				a.SetLinuxSeccompPolicy(&api.LinuxSeccomp{DefaultAction: "SCMP_ACT_ERRNO", DefaultErrno: api.UInt32(uint32(38)), Architectures: []string{"SCMP_ARCH_X86_64"}})
			},
			func(s *specs.Spec, _ *Adjustment) any {
				return []any{string(s.Linux.Seccomp.DefaultAction), *s.Linux.Seccomp.DefaultErrnoRet, len(s.Linux.Seccomp.Architectures)}
			},
			[]any{"SCMP_ACT_ERRNO", uint(38), 1},
		},
		"sysctl, cgroup, io priority, scheduler": {
			func(a *api.ContainerAdjustment) {
				a.SetLinuxSysctl("net.x", "1")
				a.SetLinuxCgroupsPath("/q")
				a.SetLinuxIOPriority(&api.LinuxIOPriority{Class: api.IOPrioClass_IOPRIO_CLASS_BE, Priority: 3})
				a.SetLinuxScheduler(&api.LinuxScheduler{Policy: api.LinuxSchedulerPolicy_SCHED_BATCH, Nice: 5})
			},
			func(s *specs.Spec, _ *Adjustment) any {
				return []any{s.Linux.Sysctl["net.x"], s.Linux.CgroupsPath, s.Process.IOPriority.Priority, s.Process.Scheduler.Nice}
			},
			[]any{"1", "/q", 3, int32(5)},
		},
		"namespaces": {
			func(a *api.ContainerAdjustment) {
				a.RemoveNamespace(&api.LinuxNamespace{Type: "network"})
				a.AddOrReplaceNamespace(&api.LinuxNamespace{Type: "pid", Path: "/p"})
			},
			func(s *specs.Spec, _ *Adjustment) any { return s.Linux.Namespaces },
			[]specs.LinuxNamespace{{Type: "pid", Path: "/p"}},
		},
		"classes": {
			func(a *api.ContainerAdjustment) { a.SetLinuxRDTClass("gold"); a.SetLinuxBlockIOClass("") },
			func(_ *specs.Spec, a *Adjustment) any { return []any{*a.RDTClass, *a.BlockIOClass} },
			[]any{"gold", ""},
		},
		"rdt properties": {
			func(a *api.ContainerAdjustment) {
				a.SetLinuxRDTClosID("c")
				a.SetLinuxRDTSchemata([]string{"L3:0=f"})
				a.SetLinuxRDTEnableMonitoring(true)
			},
			func(s *specs.Spec, _ *Adjustment) any { return *s.Linux.IntelRdt },
			specs.LinuxIntelRdt{ClosID: "c", Schemata: []string{"L3:0=f"}, EnableMonitoring: true},
		},
		"net devices and memory policy": {
			func(a *api.ContainerAdjustment) {
				a.AddLinuxNetDevice("eth7", &api.LinuxNetDevice{Name: "net0"})
				a.SetLinuxMemoryPolicy(api.MpolMode_MPOL_BIND, "0")
			},
			func(s *specs.Spec, _ *Adjustment) any {
				return []any{s.Linux.NetDevices["eth7"].Name, string(s.Linux.MemoryPolicy.Mode)}
			},
			[]any{"net0", "MPOL_BIND"},
		},
		"CRI limits and extra limits": {
			func(a *api.ContainerAdjustment) {
				a.SetLinuxMemoryLimit(1 << 20)
				a.SetLinuxMemoryReservation(7)
				a.SetLinuxCPUQuota(-1)
				a.SetLinuxCPUSetCPUs("0-1")
				a.AddLinuxHugepageLimit("2MB", 4)
				a.AddLinuxUnified("memory.high", "5")
				a.SetLinuxPidLimits(-1)
				adj := 300
				a.SetLinuxOomScoreAdj(&adj)
			},
			func(_ *specs.Spec, a *Adjustment) any {
				l := a.CRI
				return []any{l.GetMemoryLimitInBytes(), l.GetCpuQuota(), l.GetCpusetCpus(), l.GetHugepageLimits()[0].GetLimit(), l.GetUnified()["memory.high"], *a.Extra.Memory.Reservation, *a.Extra.Pids.Limit, *a.OOMScoreAdj}
			},
			[]any{int64(1 << 20), int64(-1), "0-1", uint64(4), "5", int64(7), int64(-1), 300},
		},
		"CDI devices": {
			func(a *api.ContainerAdjustment) { a.AddCDIDevice(&api.CDIDevice{Name: "v/c=d"}) },
			func(_ *specs.Spec, a *Adjustment) any { return a.CDIDevices },
			[]string{"v/c=d"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			spec, a := testSpec(), &api.ContainerAdjustment{}
			c.change(a)
			out, err := applyAdjustment(spec, a)
			if err != nil {
				t.Fatal(err)
			}
			if got := c.got(spec, out); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestApplyAdjustmentErrors(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*api.ContainerAdjustment)
		class   func(error) bool
		message string
	}{
		"class and properties": {func(a *api.ContainerAdjustment) { a.SetLinuxRDTClass("x"); a.SetLinuxRDTClosID("y") }, errdefs.IsInvalidArgument, "cannot both be set"},
		"unknown namespace":    {func(a *api.ContainerAdjustment) { a.AddOrReplaceNamespace(&api.LinuxNamespace{Type: "x"}) }, errdefs.IsInvalidArgument, `"x"`},
		"user namespace":       {func(a *api.ContainerAdjustment) { a.AddOrReplaceNamespace(&api.LinuxNamespace{Type: "user"}) }, errdefs.IsNotImplemented, "user namespace"},
		"CPU shares too large": {func(a *api.ContainerAdjustment) { a.SetLinuxCPUShares(1 << 63) }, errdefs.IsInvalidArgument, "cpu.shares"},
	} {
		t.Run(name, func(t *testing.T) {
			a := &api.ContainerAdjustment{}
			c.change(a)
			if _, err := applyAdjustment(testSpec(), a); !c.class(err) || !strings.Contains(err.Error(), c.message) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestApplyEmptyAdjustment checks that adjustments with nil or empty fields change nothing.
func TestApplyEmptyAdjustment(t *testing.T) {
	for _, a := range []*api.ContainerAdjustment{nil, {}, {Hooks: &api.Hooks{}, Linux: &api.LinuxContainerAdjustment{Rdt: &api.LinuxRdt{}, Resources: &api.LinuxResources{}}}} {
		spec := testSpec()
		if _, err := applyAdjustment(spec, a); err != nil || !reflect.DeepEqual(spec, testSpec()) {
			t.Errorf("adjustment %v: got %+v, %v", a, spec, err)
		}
	}
}

// FuzzAnswers checks that arbitrary answers lead to an OCI config that can be encoded or to an
// error.
func FuzzAnswers(f *testing.F) {
	full := &api.ContainerAdjustment{}
	full.AddEnv("A", "1")
	full.RemoveEnv("B")
	full.AddMount(&api.Mount{Destination: "/x", Options: []string{"rshared"}})
	full.AddDevice(&api.LinuxDevice{Path: "/dev/x", FileMode: api.FileMode(uint32(0o600))})
	full.AddHooks(&api.Hooks{Prestart: []*api.Hook{{Path: "/x", Timeout: api.Int(3)}}})
	full.AddOrReplaceNamespace(&api.LinuxNamespace{Type: "ipc"})
	full.AddLinuxNetDevice("e", &api.LinuxNetDevice{Name: "f"})
	full.SetLinuxSeccompPolicy(&api.LinuxSeccomp{Syscalls: []*api.LinuxSyscall{{Names: []string{"x"}, Args: []*api.LinuxSeccompArg{{}}}}})
	full.SetLinuxRDTSchemata([]string{"x"})
	full.SetLinuxMemoryPolicy(api.MpolMode_MPOL_BIND, "0", api.MpolFlag_MPOL_F_STATIC_NODES)
	full.SetLinuxScheduler(&api.LinuxScheduler{Policy: 99, Flags: []api.LinuxSchedulerFlag{-1}})
	full.SetLinuxMemoryLimit(1)
	b, err := proto.Marshal(full)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	update := &api.ContainerUpdate{ContainerId: "x"}
	update.SetLinuxCPUShares(1 << 63)
	if b, err = proto.Marshal(update); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		a, u := &api.ContainerAdjustment{}, &api.ContainerUpdate{}
		if proto.Unmarshal(data, a) == nil {
			spec := testSpec()
			spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/one"}}
			restoreRemovals(spec, &api.Container{}, a)
			if _, err := applyAdjustment(spec, a); err == nil {
				if _, err := json.Marshal(spec); err != nil {
					t.Errorf("encode OCI config: %v", err)
				}
			}
		}
		if proto.Unmarshal(data, u) == nil {
			_, _ = parseUpdates([]*api.ContainerUpdate{u, nil})
		}
	})
}

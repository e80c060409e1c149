package nri

import (
	"encoding/json"
	"testing"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
)

// FuzzAnswers: whatever a plugin answers, it is an adjustment or an error.
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
			addRemovals(spec, &api.Container{}, a)
			if _, err := adjust(spec, a); err == nil {
				if _, err := json.Marshal(spec); err != nil {
					t.Errorf("the config cannot be written: %v", err)
				}
			}
		}
		if proto.Unmarshal(data, u) == nil {
			_, _ = updatesOf([]*api.ContainerUpdate{u, nil})
		}
	})
}

package nri

import (
	"fmt"
	"math"

	"github.com/containerd/errdefs"
	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// limitsMessage translates the limits of the CRI, where 0 and "" mean "not
// set"; extra is laid over them.
func limitsMessage(r *cri.LinuxContainerResources, extra *specs.LinuxResources) *api.LinuxResources {
	if r == nil && extra == nil {
		return nil
	}
	return resourcesMessage(nil, r, extra)
}

// resourcesMessage lays the limits in force over those that a container was
// made with.
func resourcesMessage(made *specs.LinuxResources, r *cri.LinuxContainerResources, extra *specs.LinuxResources) *api.LinuxResources {
	out := api.FromOCILinuxResources(made, nil)
	if out == nil {
		out = &api.LinuxResources{}
	}
	if out.Memory == nil {
		out.Memory = &api.LinuxMemory{}
	}
	if out.Cpu == nil {
		out.Cpu = &api.LinuxCPU{}
	}
	layLimits(out, r)
	layExtra(out, extra)
	return out
}

func layLimits(out *api.LinuxResources, r *cri.LinuxContainerResources) {
	if v := r.GetMemoryLimitInBytes(); v != 0 {
		out.Memory.Limit = api.Int64(v)
	}
	if v := r.GetMemorySwapLimitInBytes(); v != 0 {
		out.Memory.Swap = api.Int64(v)
	}
	if v := r.GetCpuShares(); v > 0 {
		out.Cpu.Shares = api.UInt64(uint64(v))
	}
	if v := r.GetCpuQuota(); v != 0 {
		out.Cpu.Quota = api.Int64(v)
	}
	if v := r.GetCpuPeriod(); v > 0 {
		out.Cpu.Period = api.UInt64(uint64(v))
	}
	if v := r.GetCpusetCpus(); v != "" {
		out.Cpu.Cpus = v
	}
	if v := r.GetCpusetMems(); v != "" {
		out.Cpu.Mems = v
	}
	for _, h := range r.GetHugepageLimits() {
		setHugepages(out, h.GetPageSize(), h.GetLimit())
	}
	for k, v := range r.GetUnified() {
		if out.Unified == nil {
			out.Unified = make(map[string]string)
		}
		out.Unified[k] = v
	}
}

func setHugepages(out *api.LinuxResources, size string, limit uint64) {
	for _, h := range out.HugepageLimits {
		if h.GetPageSize() == size {
			h.Limit = limit
			return
		}
	}
	out.HugepageLimits = append(out.HugepageLimits, &api.HugepageLimit{PageSize: size, Limit: limit})
}

// layExtra is about what extraOf takes out.
func layExtra(out *api.LinuxResources, extra *specs.LinuxResources) {
	if extra == nil {
		return
	}
	if m := extra.Memory; m != nil {
		replace(&out.Memory.Reservation, api.Int64(m.Reservation))
		replace(&out.Memory.Kernel, api.Int64(m.Kernel)) //nolint:staticcheck // plugins may still set it
		replace(&out.Memory.KernelTcp, api.Int64(m.KernelTCP))
		replace(&out.Memory.Swappiness, api.UInt64(m.Swappiness))
		replace(&out.Memory.DisableOomKiller, api.Bool(m.DisableOOMKiller))
		replace(&out.Memory.UseHierarchy, api.Bool(m.UseHierarchy))
	}
	if c := extra.CPU; c != nil {
		replace(&out.Cpu.RealtimeRuntime, api.Int64(c.RealtimeRuntime))
		replace(&out.Cpu.RealtimePeriod, api.UInt64(c.RealtimePeriod))
	}
	if p := extra.Pids; p != nil && p.Limit != nil {
		out.Pids = &api.LinuxPids{Limit: *p.Limit}
	}
}

func replace[T any](field **T, by *T) {
	if by != nil {
		*field = by
	}
}

func updatesOf(messages []*api.ContainerUpdate) ([]Update, error) {
	var out []Update
	for _, message := range messages {
		if message == nil { // the library's word for "as requested"
			continue
		}
		u, err := updateOf(message)
		if err != nil && !message.GetIgnoreFailure() {
			return nil, err
		}
		if err == nil {
			out = append(out, u)
		}
	}
	return out, nil
}

func updateOf(message *api.ContainerUpdate) (Update, error) {
	r := message.GetLinux().GetResources()
	limits, extra, err := limitsOf(r)
	if err == nil {
		err = fixed(r)
	}
	if err != nil {
		return Update{}, fmt.Errorf("update of container %q: linux.resources: %w", message.GetContainerId(), err)
	}
	return Update{ContainerID: message.GetContainerId(), Limits: limits, Extra: extra, Optional: message.GetIgnoreFailure()}, nil
}

// fixed names the first of the limits that no OCI runtime changes once the
// container is made: it would take them and do nothing.
func fixed(r *api.LinuxResources) error {
	m := r.GetMemory()
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"blockio_class", r.GetBlockioClass() != nil},
		{"rdt_class", r.GetRdtClass() != nil},
		{"devices", len(r.GetDevices()) > 0},
		{"memory.swappiness", m.GetSwappiness() != nil},
		{"memory.disable_oom_killer", m.GetDisableOomKiller() != nil},
		{"memory.use_hierarchy", m.GetUseHierarchy() != nil},
		{"memory.kernel", m.GetKernel() != nil},
		{"memory.kernel_tcp", m.GetKernelTcp() != nil},
	} {
		if f.set {
			return fmt.Errorf("%s cannot be changed once the container is made: %w", f.name, errdefs.ErrNotImplemented)
		}
	}
	return nil
}

// limitsOf splits what a plugin wants into what the CRI has words for, which is
// recorded and shown, and the rest.
func limitsOf(r *api.LinuxResources) (*cri.LinuxContainerResources, *specs.LinuxResources, error) {
	out := &cri.LinuxContainerResources{
		MemoryLimitInBytes: r.GetMemory().GetLimit().GetValue(), MemorySwapLimitInBytes: r.GetMemory().GetSwap().GetValue(),
		CpuQuota:   r.GetCpu().GetQuota().GetValue(),
		CpusetCpus: r.GetCpu().GetCpus(), CpusetMems: r.GetCpu().GetMems(), Unified: r.GetUnified(),
	}
	for _, f := range []struct {
		name string
		from uint64
		to   *int64
	}{
		{"cpu.shares", r.GetCpu().GetShares().GetValue(), &out.CpuShares},
		{"cpu.period", r.GetCpu().GetPeriod().GetValue(), &out.CpuPeriod},
	} {
		if f.from > math.MaxInt64 {
			return nil, nil, fmt.Errorf("%s %d is too large: %w", f.name, f.from, errdefs.ErrInvalidArgument)
		}
		*f.to = int64(f.from)
	}
	for _, h := range r.GetHugepageLimits() {
		out.HugepageLimits = append(out.HugepageLimits, &cri.HugepageLimit{PageSize: h.GetPageSize(), Limit: h.GetLimit()})
	}
	return out, extraOf(r), nil
}

// extraOf is nil when there is nothing beyond the CRI's words.
func extraOf(r *api.LinuxResources) *specs.LinuxResources {
	out := &specs.LinuxResources{}
	m := specs.LinuxMemory{
		Reservation: r.GetMemory().GetReservation().Get(), Kernel: r.GetMemory().GetKernel().Get(), //nolint:staticcheck // plugins may still set it
		KernelTCP: r.GetMemory().GetKernelTcp().Get(), Swappiness: r.GetMemory().GetSwappiness().Get(),
		DisableOOMKiller: r.GetMemory().GetDisableOomKiller().Get(), UseHierarchy: r.GetMemory().GetUseHierarchy().Get(),
	}
	if m != (specs.LinuxMemory{}) {
		out.Memory = &m
	}
	c := specs.LinuxCPU{RealtimeRuntime: r.GetCpu().GetRealtimeRuntime().Get(), RealtimePeriod: r.GetCpu().GetRealtimePeriod().Get()}
	if c != (specs.LinuxCPU{}) {
		out.CPU = &c
	}
	if p := r.GetPids(); p != nil {
		limit := p.GetLimit()
		out.Pids = &specs.LinuxPids{Limit: &limit}
	}
	if out.Memory == nil && out.CPU == nil && out.Pids == nil {
		return nil
	}
	return out
}

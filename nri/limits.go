package nri

import (
	"fmt"
	"math"

	"github.com/containerd/errdefs"
	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Message returns limits as a message, or nil if no limits are set.
func (l Limits) Message() *api.LinuxResources {
	if l.CRI == nil && l.Extra == nil {
		return nil
	}
	return resourcesMessage(nil, l)
}

// resourcesMessage returns the resources of an OCI config as a message, in which the current
// limits replace the limits of the OCI config.
func resourcesMessage(created *specs.LinuxResources, current Limits) *api.LinuxResources {
	out := api.FromOCILinuxResources(created, nil)
	if out == nil {
		out = &api.LinuxResources{}
	}
	if out.Memory == nil {
		out.Memory = &api.LinuxMemory{}
	}
	if out.Cpu == nil {
		out.Cpu = &api.LinuxCPU{}
	}
	setCRILimits(out, current.CRI)
	setExtraLimits(out, current.Extra)
	return out
}

// setCRILimits sets the fields for the limits in r, where 0 and "" mean "not set".
func setCRILimits(out *api.LinuxResources, r *cri.LinuxContainerResources) {
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
		setHugepageLimit(out, h.GetPageSize(), h.GetLimit())
	}
	for k, v := range r.GetUnified() {
		if out.Unified == nil {
			out.Unified = make(map[string]string)
		}
		out.Unified[k] = v
	}
}

func setHugepageLimit(out *api.LinuxResources, size string, limit uint64) {
	for _, h := range out.HugepageLimits {
		if h.GetPageSize() == size {
			h.Limit = limit
			return
		}
	}
	out.HugepageLimits = append(out.HugepageLimits, &api.HugepageLimit{PageSize: size, Limit: limit})
}

// setExtraLimits sets the fields for the limits that parseExtraLimits returns.
func setExtraLimits(out *api.LinuxResources, extra *specs.LinuxResources) {
	if extra == nil {
		return
	}
	if m := extra.Memory; m != nil {
		setIfNotNil(&out.Memory.Reservation, api.Int64(m.Reservation))
		setIfNotNil(&out.Memory.Kernel, api.Int64(m.Kernel)) //nolint:staticcheck // plugins may still set it
		setIfNotNil(&out.Memory.KernelTcp, api.Int64(m.KernelTCP))
		setIfNotNil(&out.Memory.Swappiness, api.UInt64(m.Swappiness))
		setIfNotNil(&out.Memory.DisableOomKiller, api.Bool(m.DisableOOMKiller))
		setIfNotNil(&out.Memory.UseHierarchy, api.Bool(m.UseHierarchy))
	}
	if c := extra.CPU; c != nil {
		setIfNotNil(&out.Cpu.RealtimeRuntime, api.Int64(c.RealtimeRuntime))
		setIfNotNil(&out.Cpu.RealtimePeriod, api.UInt64(c.RealtimePeriod))
	}
	if p := extra.Pids; p != nil && p.Limit != nil {
		out.Pids = &api.LinuxPids{Limit: *p.Limit}
	}
}

func setIfNotNil[T any](field **T, value *T) {
	if value != nil {
		*field = value
	}
}

// parseUpdates parses the updates of an answer. It omits invalid updates whose failure the
// plugin ignores.
func parseUpdates(messages []*api.ContainerUpdate) ([]Update, error) {
	var out []Update
	for _, message := range messages {
		if message == nil { // the library returns nil for "as requested"
			continue
		}
		u, err := parseUpdate(message)
		if err != nil && !message.GetIgnoreFailure() {
			return nil, err
		}
		if err == nil {
			out = append(out, u)
		}
	}
	return out, nil
}

func parseUpdate(message *api.ContainerUpdate) (Update, error) {
	r := message.GetLinux().GetResources()
	limits, err := parseLimits(r)
	if err == nil {
		err = checkUpdatable(r)
	}
	if err != nil {
		return Update{}, fmt.Errorf("update of container %q: linux.resources: %w", message.GetContainerId(), err)
	}
	return Update{ContainerID: message.GetContainerId(), Limits: limits, Optional: message.GetIgnoreFailure()}, nil
}

// checkUpdatable returns an error if r contains a limit that OCI runtimes set only when they
// create a container. For such a limit an OCI runtime would report success and do nothing.
func checkUpdatable(r *api.LinuxResources) error {
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
			return fmt.Errorf("%s cannot be changed after the creation of the container: %w", f.name, errdefs.ErrNotImplemented)
		}
	}
	return nil
}

// parseLimits returns the limits that the CRI defines, which the runtime records and reports,
// and the other limits.
func parseLimits(r *api.LinuxResources) (Limits, error) {
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
			return Limits{}, fmt.Errorf("%s %d is too large: %w", f.name, f.from, errdefs.ErrInvalidArgument)
		}
		*f.to = int64(f.from)
	}
	for _, h := range r.GetHugepageLimits() {
		out.HugepageLimits = append(out.HugepageLimits, &cri.HugepageLimit{PageSize: h.GetPageSize(), Limit: h.GetLimit()})
	}
	return Limits{CRI: out, Extra: parseExtraLimits(r)}, nil
}

// parseExtraLimits returns the limits that the CRI does not define, or nil if there are none.
func parseExtraLimits(r *api.LinuxResources) *specs.LinuxResources {
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

package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cgroup"
)

// InspectCgroup returns the limits and the usage of a container's cgroup.
//
// Errors: NotFound if the container or its cgroup does not exist, and InvalidArgument if
// several containers match.
func (s *Server) InspectCgroup(_ context.Context, req *adminv1.InspectCgroupRequest) (*adminv1.InspectCgroupResponse, error) {
	c, err := s.selectContainer("container", req.GetContainer())
	if err != nil {
		return nil, err
	}
	version := int32(1)
	if s.cfg.Cgroups.V2() {
		version = 2
	}
	resp := &adminv1.InspectCgroupResponse{
		ContainerId: c.ID, Name: c.Config.GetMetadata().GetName(),
		PodName: c.PodConfig.GetMetadata().GetName(), PodNamespace: c.PodConfig.GetMetadata().GetNamespace(),
		Version: version, Path: c.ProcessCgroup,
	}
	// A container that has exited, and a container in a guest, have no cgroup.
	if !isAlive(c) || c.ProcessCgroup == "" {
		return nil, fmt.Errorf("container %s has no cgroup: %w", c.ID, errdefs.ErrNotFound)
	}
	stats, err := s.cfg.Cgroups.Stats(c.ProcessCgroup)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("container %s: %w: %w", c.ID, err, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	requested := requestedLimits(c.Resources, version == 2)
	limits, err := s.cfg.Cgroups.Limits(c.ProcessCgroup, slices.Collect(requested.unifiedFiles())...)
	if err != nil {
		return nil, err
	}
	resp.Time = timestamppb.New(stats.Time)
	resp.Limits = requested.compare(limits)
	resp.Usage = cgroupUsage(&stats)
	resp.Pressure = cgroupPressure(&stats)
	return resp, nil
}

func cgroupUsage(s *cgroup.Stats) *adminv1.CgroupUsage {
	m := &s.Memory
	u := &adminv1.CgroupUsage{
		Cpu:    nanoseconds(s.CPUUsage),
		Memory: m.Usage, WorkingSet: m.WorkingSet, Rss: m.RSS, Swap: m.Swap, Pids: s.Pids,
	}
	if s.Detail == nil {
		return u
	}
	d := s.Detail()
	u.Periods, u.ThrottledPeriods = optional(d.CPU.Periods), optional(d.CPU.Throttled)
	if d.CPU.ThrottledTime.Valid {
		u.Throttled = nanoseconds(d.CPU.ThrottledTime.Value)
	}
	u.MemoryPeak, u.MemoryLimitHits, u.OomKills = optional(d.Memory.Peak), optional(d.Memory.LimitHits), optional(d.Memory.OOMKills)
	for _, dev := range d.Devices {
		u.Devices = append(u.Devices, &adminv1.CgroupDeviceIO{
			Device:    cgroup.DeviceName(dev.Device),
			ReadBytes: dev.ReadBytes.Value, WriteBytes: dev.WriteBytes.Value,
			ReadOperations: dev.Reads.Value, WriteOperations: dev.Writes.Value,
		})
	}
	return u
}

func optional(o cgroup.Optional) *uint64 {
	if !o.Valid {
		return nil
	}
	return &o.Value
}

func nanoseconds(n uint64) *durationpb.Duration {
	return &durationpb.Duration{Seconds: int64(n / 1e9), Nanos: int32(n % 1e9)}
}

func cgroupPressure(s *cgroup.Stats) []*adminv1.CgroupPressure {
	var list []*adminv1.CgroupPressure
	for _, r := range []struct {
		name     string
		pressure *cgroup.Pressure
	}{{"cpu", s.CPUPressure}, {"memory", s.MemoryPressure}, {"io", s.IOPressure}} {
		if r.pressure != nil {
			list = append(list, &adminv1.CgroupPressure{Resource: r.name, Some: stall(r.pressure.Some), Full: stall(r.pressure.Full)})
		}
	}
	return list
}

func stall(s cgroup.Stall) *adminv1.CgroupStall {
	return &adminv1.CgroupStall{Total: durationpb.New(s.Total), Avg10: s.Avg10, Avg60: s.Avg60, Avg300: s.Avg300}
}

package daemon

import (
	"context"
	"os"
	"strings"

	"github.com/moby/sys/mountinfo"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/internal/mounttable"
)

// adminStatus returns the state of the daemon for the administration API.
func (p *parts) adminStatus(ctx context.Context) *adminv1.GetStatusResponse {
	l, h := p.live.Load(), p.host
	cgroupVersion := uint32(1)
	if h.cgroups.V2() {
		cgroupVersion = 2
	}
	return &adminv1.GetStatusResponse{
		Pid:             int32(os.Getpid()),
		StartTime:       timestamppb.New(p.started.begin),
		StartDuration:   durationpb.New(p.started.duration()),
		Runtime:         condition(l.handlers.Status()),
		RuntimeHandlers: l.handlers.AdminStatus(),
		Network:         p.networkStatus(),
		Storage:         p.storageStatus(ctx),
		Pods:            p.podCounts(),
		Containers:      p.containerCounts(),
		Cgroups: &adminv1.CgroupStatus{
			Driver: string(h.cgroupDriver), Version: cgroupVersion, Parent: h.cgroupParent, Monitors: h.monitorCgroup,
		},
		Security: &adminv1.SecurityStatus{
			Seccomp: h.oci.Seccomp, Apparmor: h.oci.AppArmor, ApparmorProfile: l.builder.DefaultAppArmorProfile(), Selinux: h.oci.SELinux,
		},
		Plugins: p.pluginStatus(),
	}
}

// condition returns the condition of a part whose status function returned err.
func condition(err error) *adminv1.Condition {
	if err != nil {
		return &adminv1.Condition{Reason: err.Error()}
	}
	return &adminv1.Condition{Ready: true}
}

func (p *parts) networkStatus() *adminv1.NetworkStatus {
	info := p.pods.NetworkInfo()
	s := &adminv1.NetworkStatus{Condition: condition(p.pods.NetworkStatus()), Name: info.Name, File: info.File}
	if b := info.DefaultBridge; b != nil {
		s.DefaultBridge = b.Bridge
		for _, r := range b.Ranges {
			s.DefaultBridgeRanges = append(s.DefaultBridgeRanges, r.String())
		}
	}
	if !info.StatusTime.IsZero() {
		s.CniStatusTime = timestamppb.New(info.StatusTime)
	}
	if info.StatusError != nil {
		s.CniStatusError = info.StatusError.Error()
	}
	return s
}

// storageStatus returns the state of the image store. A value that cannot be read is 0.
func (p *parts) storageStatus(ctx context.Context) *adminv1.StorageStatus {
	root := p.settings.Root
	s := &adminv1.StorageStatus{
		Root: root, RunDir: p.settings.RunDir, Archives: p.archiveStatus(), Images: uint32(len(p.images.List())), Layers: uint32(p.images.LayerCount()),
	}
	log := logrus.WithContext(ctx).WithField("path", root)
	images, written, err := p.images.FSUsage(ctx)
	if err != nil {
		log.WithError(err).Warn("read the disk usage of images")
	}
	s.ImageBytes, s.WritableBytes = images.Bytes, written.Bytes
	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err != nil {
		log.WithError(err).Warn("read the size of the file system")
	} else {
		blockSize := uint64(fs.Frsize)
		s.CapacityBytes, s.FreeBytes = fs.Blocks*blockSize, fs.Bavail*blockSize
	}
	if s.FileSystem, err = fileSystem(root); err != nil {
		log.WithError(err).Warn("read the type of the file system")
	}
	return s
}

// archiveStatus returns the state of the archive directories, or nil if there are none.
func (p *parts) archiveStatus() *adminv1.ArchiveStatus {
	st := p.images.ArchiveStatus()
	if len(st.Dirs) == 0 {
		return nil
	}
	s := &adminv1.ArchiveStatus{Dirs: st.Dirs, Archives: uint32(st.Archives), Images: uint32(st.Images), Loading: st.Loading} //nolint:gosec // numbers of files
	for _, f := range st.Failures {
		s.Failures = append(s.Failures, &adminv1.ArchiveFailure{Path: f.Path, Error: f.Err.Error()})
	}
	return s
}

// fileSystem returns the type of the file system of a directory, or "" if the mount table does
// not contain it.
func fileSystem(dir string) (string, error) {
	mounts, err := mounttable.Read(mountinfo.ParentsFilter(dir))
	if err != nil {
		return "", err
	}
	best := ""
	fsType := ""
	for _, m := range mounts {
		// A later mount on the same directory covers an earlier one.
		if len(m.Mountpoint) >= len(best) {
			best, fsType = m.Mountpoint, m.FSType
		}
	}
	return strings.TrimPrefix(fsType, "fuse."), nil
}

func (p *parts) podCounts() *adminv1.PodCounts {
	c := &adminv1.PodCounts{}
	for _, pod := range p.pods.List() {
		if pod.Ready {
			c.Ready++
		} else {
			c.NotReady++
		}
	}
	return c
}

func (p *parts) containerCounts() *adminv1.ContainerCounts {
	c := &adminv1.ContainerCounts{}
	for _, s := range p.containers.List() {
		switch s.State {
		case container.Created:
			c.Created++
		case container.Running:
			c.Running++
		case container.Exited:
			c.Exited++
		default:
			c.Unknown++
		}
	}
	return c
}

func (p *parts) pluginStatus() *adminv1.PluginStatus {
	if p.plugins == nil {
		return &adminv1.PluginStatus{}
	}
	return &adminv1.PluginStatus{Enabled: true, Connected: uint32(p.plugins.Count()), Socket: p.plugins.Socket()}
}

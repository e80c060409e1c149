package server

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/sandbox"
)

// Metrics of a container's writable layer and of the file system that it takes
// its space from.
var (
	layerBytes   = gauge("container_fs_usage_bytes", "Bytes in the container's writable layer.", "device")
	fsLimit      = gauge("container_fs_limit_bytes", "Size of the file system that the writable layer is on.", "device")
	fsInodesFree = gauge("container_fs_inodes_free", "Inodes left in the file system that the writable layer is on.", "device")
	fsInodes     = gauge("container_fs_inodes_total", "Inodes of the file system that the writable layer is on.", "device")
)

// disk is a file system.
type disk struct {
	device                    string
	bytes, inodesFree, inodes cgroup.Figure
}

// diskReader looks at each mount point once for a list of metrics.
type diskReader map[string]disk

func (r diskReader) read(mountpoint string) disk {
	d, ok := r[mountpoint]
	if !ok {
		d = readDisk(mountpoint)
		r[mountpoint] = d
	}
	return d
}

// readDisk leaves out what the file system does not tell; some, like btrfs,
// have no number of inodes.
func readDisk(mountpoint string) (d disk) {
	var st unix.Stat_t
	if err := unix.Stat(mountpoint, &st); err == nil {
		d.device = cgroup.DeviceName(cgroup.DeviceNumbers(unix.Major(st.Dev), unix.Minor(st.Dev)))
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(mountpoint, &fs); err != nil {
		return d
	}
	d.bytes = sure(fs.Blocks * uint64(fs.Bsize))
	d.inodesFree = cgroup.Figure{Value: fs.Ffree, Known: fs.Files > 0}
	d.inodes = cgroup.Figure{Value: fs.Files, Known: fs.Files > 0}
	return d
}

func (s *sampler) addLayer(u container.LayerUsage, disks diskReader) {
	d := disks.read(u.Mountpoint)
	s.add(layerBytes, u.Bytes, d.device)
	s.know(fsLimit, d.bytes, d.device)
	s.know(fsInodesFree, d.inodesFree, d.device)
	s.know(fsInodes, d.inodes, d.device)
}

// Metrics of the block devices that a cgroup has used.
var (
	fsReadBytes  = counter("container_fs_reads_bytes_total", "Bytes read from the device.", "device")
	fsReads      = counter("container_fs_reads_total", "Reads from the device.", "device")
	fsWriteBytes = counter("container_fs_writes_bytes_total", "Bytes written to the device.", "device")
	fsWrites     = counter("container_fs_writes_total", "Writes to the device.", "device")
	deviceUsage  = counter("container_blkio_device_usage_total", "Bytes of an operation on the device.", "device", "major", "minor", "operation")
)

func (s *sampler) addDevice(d cgroup.DeviceIO) {
	name := cgroup.DeviceName(d.Device)
	s.know(fsReadBytes, d.ReadBytes, name)
	s.know(fsReads, d.Reads, name)
	s.know(fsWriteBytes, d.WriteBytes, name)
	s.know(fsWrites, d.Writes, name)
	major, minor, _ := strings.Cut(d.Device, ":")
	s.know(deviceUsage, d.ReadBytes, name, major, minor, "Read")
	s.know(deviceUsage, d.WriteBytes, name, major, minor, "Write")
	s.know(deviceUsage, d.DiscardBytes, name, major, minor, "Discard")
}

// linkMetrics are those of each interface of a pod.
var linkMetrics = []struct {
	metric
	read func(l *sandbox.Link) uint64
}{
	{counter("container_network_receive_bytes_total", "Bytes received.", "interface"), func(l *sandbox.Link) uint64 { return l.RxBytes }},
	{counter("container_network_receive_packets_total", "Packets received.", "interface"), func(l *sandbox.Link) uint64 { return l.RxPackets }},
	{counter("container_network_receive_packets_dropped_total", "Packets dropped while receiving.", "interface"), func(l *sandbox.Link) uint64 { return l.RxDropped }},
	{counter("container_network_receive_errors_total", "Errors while receiving.", "interface"), func(l *sandbox.Link) uint64 { return l.RxErrors }},
	{counter("container_network_transmit_bytes_total", "Bytes transmitted.", "interface"), func(l *sandbox.Link) uint64 { return l.TxBytes }},
	{counter("container_network_transmit_packets_total", "Packets transmitted.", "interface"), func(l *sandbox.Link) uint64 { return l.TxPackets }},
	{counter("container_network_transmit_packets_dropped_total", "Packets dropped while transmitting.", "interface"), func(l *sandbox.Link) uint64 { return l.TxDropped }},
	{counter("container_network_transmit_errors_total", "Errors while transmitting.", "interface"), func(l *sandbox.Link) uint64 { return l.TxErrors }},
}

func (s *sampler) addLink(l *sandbox.Link) {
	for _, m := range linkMetrics {
		s.add(m.metric, m.read(l), l.Name)
	}
}

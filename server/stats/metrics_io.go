package stats

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/sandbox"
)

// Metrics of a container's writable layer and of the file system of the layer.
var (
	layerBytes           = gauge("container_fs_usage_bytes", "Bytes in the container's writable layer.", "device")
	filesystemBytes      = gauge("container_fs_limit_bytes", "Size of the file system that the writable layer is on.", "device")
	filesystemInodesFree = gauge("container_fs_inodes_free", "Free inodes of the file system that the writable layer is on.", "device")
	filesystemInodes     = gauge("container_fs_inodes_total", "Inodes of the file system that the writable layer is on.", "device")

	filesystemMetrics = []metric{layerBytes, filesystemBytes, filesystemInodesFree, filesystemInodes}
)

// filesystem is the device and the size of a file system.
type filesystem struct {
	device                    string
	bytes, inodesFree, inodes cgroup.Optional
}

// filesystemCache holds file systems by mount point.
type filesystemCache map[string]filesystem

// get returns the file system at a mount point. It reads each one once.
func (c filesystemCache) get(mountpoint string) filesystem {
	fs, ok := c[mountpoint]
	if !ok {
		fs = readFilesystem(mountpoint)
		c[mountpoint] = fs
	}
	return fs
}

// readFilesystem reads the size of the file system at a mount point. Values that
// the file system does not report are not valid; btrfs, for example, has no number
// of inodes.
func readFilesystem(mountpoint string) (fs filesystem) {
	var st unix.Stat_t
	if err := unix.Stat(mountpoint, &st); err == nil {
		fs.device = cgroup.DeviceName(cgroup.DeviceNumbers(unix.Major(st.Dev), unix.Minor(st.Dev)))
	}
	var size unix.Statfs_t
	if err := unix.Statfs(mountpoint, &size); err != nil {
		return fs
	}
	fs.bytes = valid(size.Blocks * uint64(size.Bsize))
	fs.inodesFree = cgroup.Optional{Value: size.Ffree, Valid: size.Files > 0}
	fs.inodes = cgroup.Optional{Value: size.Files, Valid: size.Files > 0}
	return fs
}

// addLayer adds the metrics of a container's writable layer.
func (c *collector) addLayer(u container.LayerUsage, cache filesystemCache) {
	fs := cache.get(u.Mountpoint)
	c.add(layerBytes, u.Bytes, fs.device)
	c.addValid(filesystemBytes, fs.bytes, fs.device)
	c.addValid(filesystemInodesFree, fs.inodesFree, fs.device)
	c.addValid(filesystemInodes, fs.inodes, fs.device)
}

// Metrics of a block device that a cgroup has used.
var (
	deviceReadBytes  = counter("container_fs_reads_bytes_total", "Bytes read from the device.", "device")
	deviceReads      = counter("container_fs_reads_total", "Reads from the device.", "device")
	deviceWriteBytes = counter("container_fs_writes_bytes_total", "Bytes written to the device.", "device")
	deviceWrites     = counter("container_fs_writes_total", "Writes to the device.", "device")
	deviceUsage      = counter("container_blkio_device_usage_total", "Bytes of an operation on the device.", "device", "major", "minor", "operation")

	deviceMetrics = []metric{deviceReadBytes, deviceReads, deviceWriteBytes, deviceWrites, deviceUsage}
)

// addDevice adds the metrics of a block device.
func (c *collector) addDevice(d cgroup.DeviceIO) {
	name := cgroup.DeviceName(d.Device)
	c.addValid(deviceReadBytes, d.ReadBytes, name)
	c.addValid(deviceReads, d.Reads, name)
	c.addValid(deviceWriteBytes, d.WriteBytes, name)
	c.addValid(deviceWrites, d.Writes, name)
	major, minor, _ := strings.Cut(d.Device, ":")
	c.addValid(deviceUsage, d.ReadBytes, name, major, minor, "Read")
	c.addValid(deviceUsage, d.WriteBytes, name, major, minor, "Write")
	c.addValid(deviceUsage, d.DiscardBytes, name, major, minor, "Discard")
}

// networkMetrics are the metrics of one network interface of a pod.
var networkMetrics = []struct {
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

// addInterface adds the metrics of a network interface.
func (c *collector) addInterface(l *sandbox.Link) {
	for _, m := range networkMetrics {
		c.add(m.metric, m.read(l), l.Name)
	}
}

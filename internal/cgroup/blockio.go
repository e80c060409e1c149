package cgroup

import (
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// DeviceIO is the I/O of a cgroup on one block device. Writes through the page cache are not
// counted on v1, and on v2 for file systems without support for that.
type DeviceIO struct {
	Device string // "major:minor"
	// Bytes and numbers of requests by kind.
	ReadBytes, WriteBytes, DiscardBytes Optional
	Reads, Writes                       Optional
}

// parseIOStat parses the file io.stat of v2. Each line contains a device and pairs such as
// rbytes=4096. A device may have no pairs.
func parseIOStat(text string) []DeviceIO {
	var all []DeviceIO
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || !strings.Contains(f[0], ":") {
			continue
		}
		d := DeviceIO{Device: f[0]}
		for _, pair := range f[1:] {
			key, value, _ := strings.Cut(pair, "=")
			switch key {
			case "rbytes":
				d.ReadBytes = parseOptional(value)
			case "wbytes":
				d.WriteBytes = parseOptional(value)
			case "dbytes":
				d.DiscardBytes = parseOptional(value)
			case "rios":
				d.Reads = parseOptional(value)
			case "wios":
				d.Writes = parseOptional(value)
			}
		}
		all = append(all, d)
	}
	return all
}

// devicesV1 reads the counters of the throttling layer, which counts requests with every I/O
// scheduler.
func (t *Tree) devicesV1(p string) []DeviceIO {
	dir := t.Dir("blkio", p)
	if dir == "" {
		return nil
	}
	found := make(map[string]*DeviceIO)
	blkioLines(dir, "blkio.throttle.io_service_bytes", func(device, kind string, v Optional) {
		d := deviceEntry(found, device)
		switch kind {
		case "Read":
			d.ReadBytes = v
		case "Write":
			d.WriteBytes = v
		case "Discard":
			d.DiscardBytes = v
		}
	})
	blkioLines(dir, "blkio.throttle.io_serviced", func(device, kind string, v Optional) {
		d := deviceEntry(found, device)
		switch kind {
		case "Read":
			d.Reads = v
		case "Write":
			d.Writes = v
		}
	})
	var all []DeviceIO
	for _, device := range slices.Sorted(maps.Keys(found)) {
		all = append(all, *found[device])
	}
	return all
}

// deviceEntry returns the entry of a device, and adds it if necessary.
func deviceEntry(all map[string]*DeviceIO, device string) *DeviceIO {
	if all[device] == nil {
		all[device] = &DeviceIO{Device: device}
	}
	return all[device]
}

// blkioLines calls each for lines such as "8:0 Read 4096". The values include the cgroups below
// on Linux 4.17 and later.
func blkioLines(dir, file string, each func(device, kind string, v Optional)) {
	text := readText(filepath.Join(dir, file+"_recursive"))
	if text == "" {
		text = readText(filepath.Join(dir, file))
	}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 3 {
			each(f[0], f[1], parseOptional(f[2]))
		}
	}
}

// DeviceName returns the path of a block device by its numbers: "/dev/sda" for "8:0". If the
// device has no name, DeviceName returns the numbers.
func DeviceName(numbers string) string {
	link, err := os.Readlink(path.Join("/sys/dev/block", numbers))
	if err != nil {
		return numbers
	}
	return "/dev/" + strings.ReplaceAll(path.Base(link), "!", "/") // sysfs replaces a slash in a device name by "!"
}

// DeviceNumbers returns the argument of DeviceName for a device.
func DeviceNumbers(major, minor uint32) string { return fmt.Sprintf("%d:%d", major, minor) }

// HasBlockIOWeight reports whether cgroups like p can have a block I/O weight. That depends on
// the I/O schedulers of the kernel. The root never has a weight.
//
// The cgroup p may not exist yet, because systemd makes the slice of a pod only for the first
// container. On v2 the cgroup may also not have the io controller yet, which the OCI runtime
// will enable. In these cases other cgroups show what the kernel supports.
func (t *Tree) HasBlockIOWeight(p string) bool {
	controller, sign, weights := "blkio", "cgroup.procs", []string{"blkio.weight", "blkio.bfq.weight"}
	if t.v2 {
		controller, sign, weights = "", "io.max", []string{"io.weight", "io.bfq.weight"}
	}
	root := t.Dir(controller, "/")
	if root == "" {
		return false
	}
	var dirs []string
	for q := p; q != "/" && q != "."; q = path.Dir(q) {
		dirs = append(dirs, filepath.Join(root, q))
	}
	others, _ := filepath.Glob(filepath.Join(root, "*"))
	for _, dir := range append(dirs, others...) {
		if hasFile(dir, sign) {
			return hasFile(dir, weights...)
		}
	}
	return false
}

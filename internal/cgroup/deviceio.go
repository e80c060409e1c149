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

// DeviceIO is what a cgroup has had of a block device. On v1, and for file
// systems that do not support it on v2, writes that went through the page cache
// count for nobody.
type DeviceIO struct {
	Device string // "major:minor"
	// The bytes of each kind, and the number of requests.
	ReadBytes, WriteBytes, DiscardBytes Figure
	Reads, Writes                       Figure
}

// parseIOStat reads the file io.stat of v2: a device in each line, then pairs
// like rbytes=4096. A device can be there without figures.
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
				d.ReadBytes = parseFigure(value)
			case "wbytes":
				d.WriteBytes = parseFigure(value)
			case "dbytes":
				d.DiscardBytes = parseFigure(value)
			case "rios":
				d.Reads = parseFigure(value)
			case "wios":
				d.Writes = parseFigure(value)
			}
		}
		all = append(all, d)
	}
	return all
}

// devicesV1 reads the counters of the throttling layer, which sees the requests
// whatever the I/O scheduler is.
func (t *Tree) devicesV1(p string) []DeviceIO {
	dir := t.Dir("blkio", p)
	if dir == "" {
		return nil
	}
	found := make(map[string]*DeviceIO)
	blkioLines(dir, "blkio.throttle.io_service_bytes", func(device, kind string, v Figure) {
		d := entryOf(found, device)
		switch kind {
		case "Read":
			d.ReadBytes = v
		case "Write":
			d.WriteBytes = v
		case "Discard":
			d.DiscardBytes = v
		}
	})
	blkioLines(dir, "blkio.throttle.io_serviced", func(device, kind string, v Figure) {
		d := entryOf(found, device)
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

func entryOf(all map[string]*DeviceIO, device string) *DeviceIO {
	if all[device] == nil {
		all[device] = &DeviceIO{Device: device}
	}
	return all[device]
}

// blkioLines goes through lines like "8:0 Read 4096", with the cgroups below
// counted in where the kernel (4.17 or later) can.
func blkioLines(dir, file string, each func(device, kind string, v Figure)) {
	text := readText(filepath.Join(dir, file+"_recursive"))
	if text == "" {
		text = readText(filepath.Join(dir, file))
	}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 3 {
			each(f[0], f[1], parseFigure(f[2]))
		}
	}
}

// DeviceName returns the name of a block device by its numbers, "8:0", as in
// "/dev/sda". Without a name it is the numbers.
func DeviceName(numbers string) string {
	link, err := os.Readlink(path.Join("/sys/dev/block", numbers))
	if err != nil {
		return numbers
	}
	return "/dev/" + strings.ReplaceAll(path.Base(link), "!", "/") // a slash in a name is "!" in sysfs
}

// DeviceNumbers are those that DeviceName takes.
func DeviceNumbers(major, minor uint32) string { return fmt.Sprintf("%d:%d", major, minor) }

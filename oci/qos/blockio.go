package qos

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// minWeight and maxWeight are the kernel's limits of a weight.
const minWeight, maxWeight = 10, 1000

// BlockIO contains the block I/O classes of a file in the format of the package blockio of goresctrl, which containerd
// and CRI-O use. File is "" if there is no file.
type BlockIO struct{ File string }

type blockIOFile struct {
	Classes map[string][]blockIO
}

// blockIO contains the parameters of a set of devices: rates in bytes or operations per second,
// and a weight. Without devices, it has only a weight, which applies to all other devices.
type blockIO struct {
	Devices           []string // paths or patterns
	ThrottleReadBps   quantity
	ThrottleWriteBps  quantity
	ThrottleReadIOPS  quantity
	ThrottleWriteIOPS quantity
	Weight            quantity
}

// Check reads the file and returns its errors, for the start of the daemon. A missing device is
// no error, because the device may be added later.
func (b BlockIO) Check() error {
	if b.File == "" {
		return nil
	}
	f, err := b.read()
	if err != nil {
		return err
	}
	for _, class := range slices.Sorted(maps.Keys(f.Classes)) {
		for i, p := range f.Classes[class] {
			if err := p.check(); err != nil {
				return fmt.Errorf("%s: class %q, entry %d: %w", b.File, class, i, err)
			}
		}
	}
	return nil
}

func (b BlockIO) read() (f blockIOFile, err error) {
	if err := read(b.File, &f); err != nil {
		return f, err
	}
	for class := range f.Classes {
		if !className.MatchString(class) {
			return f, fmt.Errorf("%s: class %q: a name has letters, digits, '.', '_' and '-'", b.File, class)
		}
	}
	return f, nil
}

// Class returns a class with its devices. It returns ErrInvalidArgument for an unknown class,
// and ErrFailedPrecondition if the node lacks a feature that the class needs.
func (b BlockIO) Class(name string) (*specs.LinuxBlockIO, error) {
	if b.File == "" {
		return nil, unconfigured("block I/O")
	}
	f, err := b.read()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrFailedPrecondition)
	}
	entries, ok := f.Classes[name]
	if !ok {
		return nil, unknown(name, b.File)
	}
	out := &specs.LinuxBlockIO{}
	for i, p := range entries {
		if err := p.addTo(out); err != nil {
			return nil, fmt.Errorf("%s: class %q, entry %d: %w: %w", b.File, name, i, err, errdefs.ErrFailedPrecondition)
		}
	}
	return out, nil
}

func (p blockIO) check() error {
	throttled := p.ThrottleReadBps != 0 || p.ThrottleWriteBps != 0 || p.ThrottleReadIOPS != 0 || p.ThrottleWriteIOPS != 0
	switch {
	case p.Weight != 0 && (p.Weight < minWeight || p.Weight > maxWeight):
		return fmt.Errorf("weight %d must be from %d to %d", p.Weight, minWeight, maxWeight)
	case len(p.Devices) == 0 && throttled:
		return errors.New("without devices there can only be a weight")
	case p.Weight == 0 && !throttled:
		return errors.New("there is neither a weight nor a rate")
	}
	for _, pattern := range p.Devices {
		if _, err := filepath.Match(pattern, ""); err != nil || !strings.HasPrefix(pattern, "/dev/") {
			return fmt.Errorf("device %q must be a path or a pattern below /dev", pattern)
		}
	}
	return nil
}

func (p blockIO) addTo(out *specs.LinuxBlockIO) error {
	if err := p.check(); err != nil {
		return err
	}
	weight := uint16(p.Weight)
	if len(p.Devices) == 0 {
		out.Weight = &weight
		return nil
	}
	devices, err := findDevices(p.Devices)
	if err != nil {
		return err
	}
	for _, d := range devices {
		if weight != 0 {
			w := specs.LinuxWeightDevice{Weight: &weight}
			w.Major, w.Minor = d[0], d[1]
			out.WeightDevice = append(out.WeightDevice, w)
		}
		throttle(&out.ThrottleReadBpsDevice, d, p.ThrottleReadBps)
		throttle(&out.ThrottleWriteBpsDevice, d, p.ThrottleWriteBps)
		throttle(&out.ThrottleReadIOPSDevice, d, p.ThrottleReadIOPS)
		throttle(&out.ThrottleWriteIOPSDevice, d, p.ThrottleWriteIOPS)
	}
	return nil
}

func throttle(list *[]specs.LinuxThrottleDevice, device [2]int64, rate quantity) {
	if rate == 0 {
		return
	}
	t := specs.LinuxThrottleDevice{Rate: uint64(rate)}
	t.Major, t.Minor = device[0], device[1]
	*list = append(*list, t)
}

// findDevices returns the major and minor numbers of the block devices that match patterns. At
// least one must match.
func findDevices(patterns []string) ([][2]int64, error) {
	var out [][2]int64
	for _, pattern := range patterns {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			var st unix.Stat_t
			if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
				continue
			}
			d := [2]int64{int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))}
			if !slices.Contains(out, d) {
				out = append(out, d)
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: none of %s is a block device", os.ErrNotExist, strings.Join(patterns, ", "))
	}
	return out, nil
}

// quantity is a number with an optional unit: 4000, 60M, 1Gi.
type quantity uint64

var units = map[string]uint64{
	"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40,
}

// UnmarshalJSON accepts a number or a string.
func (q *quantity) UnmarshalJSON(b []byte) error {
	text := string(b)
	if text == "null" {
		return nil
	}
	if strings.HasPrefix(text, `"`) {
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
	}
	digits := strings.TrimRight(text, "kKMGTi")
	n, err := strconv.ParseUint(digits, 10, 63)
	unit, known := units[text[len(digits):]]
	if err != nil || !known || n == 0 || n > math.MaxInt64/unit {
		return fmt.Errorf("%q must be a number greater than 0 like 4000, 60M or 1Gi", text)
	}
	*q = quantity(n * unit)
	return nil
}

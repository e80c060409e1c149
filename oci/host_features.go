package oci

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Host contains what the host and the privileges of the daemon allow.
type Host struct {
	CgroupV2 bool
	// UnifiedRoot is the root directory of the v2 hierarchy if CgroupV2. With "", the files of
	// cgroups are not checked.
	UnifiedRoot string
	Hugetlb     bool // OCI runtimes can use the hugetlb controller
	// HybridHugetlb says that the hugetlb controller is on the v2 hierarchy of a hybrid host,
	// where OCI runtimes cannot use it.
	HybridHugetlb bool
	// PageSize is the size of a memory page in bytes. 0 means 4096.
	PageSize int64
	// HugePages are the huge page sizes of the host, in the format of cgroups ("2MB").
	HugePages      []string
	SwapAccounting bool
	Seccomp        bool
	X32            bool // the x32 ABI of amd64
	AppArmor       bool
	SELinux        bool
	// OnlineCPUs and OnlineNodes are the files that list the online CPUs and memory nodes; ""
	// if unknown.
	OnlineCPUs, OnlineNodes string
	// Capabilities are the capabilities that the daemon can give to containers, sorted.
	Capabilities []string
	// OOMScoreAdj and HardRlimits are the values of the daemon's process.
	OOMScoreAdj int
	HardRlimits map[string]uint64
	// MaxOpenFiles is fs.nr_open, the maximum of RLIMIT_NOFILE; 0 if unknown.
	MaxOpenFiles uint64
}

// Controllers reports the available cgroup controllers. *cgroup.Tree implements it.
type Controllers interface {
	V2() bool
	HasController(name string) bool
	HybridHugetlb() bool
	Dir(controller, path string) string
}

// DetectHost returns what the host and the privileges of the calling process allow.
func DetectHost(cg Controllers) (Host, error) {
	caps, err := daemonCapabilities()
	if err != nil {
		return Host{}, fmt.Errorf("read the daemon's capabilities: %w", err)
	}
	h := Host{
		CgroupV2:      cg.V2(),
		Hugetlb:       cg.HasController("hugetlb"),
		HybridHugetlb: cg.HybridHugetlb(),
		PageSize:      int64(os.Getpagesize()),
		HugePages:     hugePages("/sys/kernel/mm/hugepages"),
		OnlineCPUs:    "/sys/devices/system/cpu/online",
		OnlineNodes:   "/sys/devices/system/node/online",
		Seccomp:       exists("/proc/sys/kernel/seccomp/actions_avail"),
		X32:           x32(),
		SELinux:       exists("/sys/fs/selinux/enforce"),
		AppArmor:      strings.HasPrefix(readTrimmed("/sys/module/apparmor/parameters/enabled"), "Y"),
		Capabilities:  caps,
		HardRlimits:   daemonHardRlimits(),
		MaxOpenFiles:  maxOpenFiles(),
	}
	if h.CgroupV2 {
		h.UnifiedRoot = cg.Dir("", "/")
	}
	h.SwapAccounting = swapAccounting(cg, "/proc/swaps")
	h.OOMScoreAdj, err = strconv.Atoi(readTrimmed("/proc/self/oom_score_adj"))
	if err != nil {
		return Host{}, fmt.Errorf("read the daemon's oom_score_adj: %w", err)
	}
	return h, nil
}

// daemonCapabilities returns the capabilities that are permitted and in the bounding set.
func daemonCapabilities() ([]string, error) {
	own, err := capability.NewPid2(0)
	if err != nil {
		return nil, err
	}
	if err := own.Load(); err != nil {
		return nil, err
	}
	var names []string
	for _, c := range capability.ListKnown() {
		if own.Get(capability.PERMITTED, c) && own.Get(capability.BOUNDING, c) {
			names = append(names, capabilityName(c))
		}
	}
	slices.Sort(names)
	return names, nil
}

func daemonHardRlimits() map[string]uint64 {
	limits := make(map[string]uint64)
	for name, resource := range map[string]int{
		"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_DATA": unix.RLIMIT_DATA,
		"RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK,
		"RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE,
		"RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS, "RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO,
		"RLIMIT_RTTIME": unix.RLIMIT_RTTIME, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
	} {
		var r unix.Rlimit
		if unix.Getrlimit(resource, &r) == nil {
			limits[name] = r.Max
		}
	}
	return limits
}

func maxOpenFiles() uint64 {
	n, err := strconv.ParseUint(readTrimmed("/proc/sys/fs/nr_open"), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// FitRlimits returns the limits, lowered to what processes on this host can have, and a warning
// for each lowered limit. Without CAP_SYS_RESOURCE, a hard limit cannot exceed the daemon's.
func (h *Host) FitRlimits(limits []specs.POSIXRlimit) (fit []specs.POSIXRlimit, warnings []string) {
	fit = slices.Clone(limits)
	for i := range fit {
		r := &fit[i]
		if hard, known := h.HardRlimits[r.Type]; known && r.Hard > hard && !slices.Contains(h.Capabilities, "CAP_SYS_RESOURCE") {
			warnings = append(warnings, fmt.Sprintf("rlimit %s: %d is above the daemon's own hard limit: %d is used", r.Type, r.Hard, hard))
			r.Hard, r.Soft = hard, min(r.Soft, hard)
		}
		if m := h.MaxOpenFiles; r.Type == "RLIMIT_NOFILE" && m > 0 && r.Hard > m {
			warnings = append(warnings, fmt.Sprintf("rlimit %s: %d is above fs.nr_open: %d is used", r.Type, r.Hard, m))
			r.Hard, r.Soft = m, min(r.Soft, m)
		}
	}
	return fit, warnings
}

// swapAccounting reports whether the kernel limits swap. On v2 the root cgroup has no limits,
// so another cgroup shows whether the file exists. If no cgroup has memory limits yet, the
// result is whether the kernel supports swap.
func swapAccounting(cg Controllers, swaps string) bool {
	if !cg.V2() {
		return exists(cg.Dir("memory", "/") + "/memory.memsw.limit_in_bytes")
	}
	limited, _ := filepath.Glob(cg.Dir("", "/") + "/*/memory.max")
	for _, file := range limited {
		if exists(filepath.Join(filepath.Dir(file), swapMax)) {
			return true
		}
	}
	return len(limited) == 0 && exists(swaps)
}

// hugePages returns the page sizes from the names in a directory, such as "hugepages-2048kB".
func hugePages(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var sizes []string
	for _, e := range entries {
		kilobytes, ok := strings.CutPrefix(strings.TrimSuffix(e.Name(), "kB"), "hugepages-")
		n, err := strconv.ParseUint(kilobytes, 10, 40)
		if !ok || err != nil {
			continue
		}
		unit := 0
		for ; n >= 1024 && n%1024 == 0; unit++ {
			n /= 1024
		}
		sizes = append(sizes, strconv.FormatUint(n, 10)+[]string{"KB", "MB", "GB", "TB"}[unit])
	}
	return sizes
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func readTrimmed(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

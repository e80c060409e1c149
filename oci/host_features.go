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

// Host is what the machine and the daemon's own privileges allow.
type Host struct {
	CgroupV2 bool
	// UnifiedRoot is the directory of the unified hierarchy if CgroupV2; "" where
	// nobody can tell which files cgroups have.
	UnifiedRoot string
	Hugetlb     bool // OCI runtimes can use the hugetlb controller
	// HybridHugetlb: it is on the unified hierarchy beside v1, where they do not.
	HybridHugetlb bool
	// PageSize is the size of a memory page in bytes; 0 stands for 4096.
	PageSize int64
	// HugePages are the sizes that there are, as cgroups name them ("2MB").
	HugePages      []string
	SwapAccounting bool
	Seccomp        bool
	X32            bool // the x32 ABI of amd64
	AppArmor       bool
	SELinux        bool
	// OnlineCPUs and OnlineNodes are the files that list the CPUs and memory nodes
	// of now; "" when nobody can tell.
	OnlineCPUs, OnlineNodes string
	// Capabilities are those that the daemon can hand on, sorted.
	Capabilities []string
	// OOMScoreAdj and HardRlimits are the daemon's own.
	OOMScoreAdj int
	HardRlimits map[string]uint64
	// MaxOpenFiles is fs.nr_open, which no RLIMIT_NOFILE can exceed; 0 for unknown.
	MaxOpenFiles uint64
}

// Controllers tells which cgroup controllers there are. *cgroup.Tree does.
type Controllers interface {
	V2() bool
	HasController(name string) bool
	HybridHugetlb() bool
	Dir(controller, path string) string
}

// DetectHost finds out about the machine and the calling process.
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

// daemonCapabilities are those both permitted and in the bounding set.
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

// FitRlimits returns the limits, lowered to what processes of this host can have,
// and says which were lowered. Without CAP_SYS_RESOURCE no hard limit can be above
// the daemon's own.
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

// swapAccounting says whether the kernel limits swap. On v2 the root has no
// limits to look at, so another cgroup tells, or, where there is none yet with
// limits of memory, whether the kernel has swap at all.
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

// hugePages reads the sizes off the names in a directory: "hugepages-2048kB".
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

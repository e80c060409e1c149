package host

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/criserver/criserver/oci"
	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"
)

// Controllers reports the available cgroup controllers. *cgroup.Tree implements it.
type Controllers interface {
	V2() bool
	HasController(name string) bool
	HybridHugetlb() bool
	Dir(controller, path string) string
}

// Detect returns the limits of the host and of the privileges of the calling process.
func Detect(cg Controllers) (oci.Host, error) {
	caps, err := daemonCapabilities()
	if err != nil {
		return oci.Host{}, fmt.Errorf("read the daemon's capabilities: %w", err)
	}
	h := oci.Host{
		CgroupV2:      cg.V2(),
		Hugetlb:       cg.HasController("hugetlb"),
		HybridHugetlb: cg.HybridHugetlb(),
		PageSize:      int64(os.Getpagesize()),
		HugePages:     hugePages("/sys/kernel/mm/hugepages"),
		Seccomp:       exists("/proc/sys/kernel/seccomp/actions_avail"),
		X32:           x32(),
		SELinux:       exists("/sys/fs/selinux/enforce"),
		AppArmor:      strings.HasPrefix(readTrimmed("/sys/module/apparmor/parameters/enabled"), "Y"),
		Capabilities:  caps,
		HardRlimits:   daemonHardRlimits(),
		MaxOpenFiles:  maxOpenFiles(),
	}
	live := liveFacts{}
	if h.CgroupV2 {
		live.unifiedRoot = cg.Dir("", "/")
	}
	h.Live = live
	h.SwapAccounting = swapAccounting(cg, "/proc/swaps")
	h.OOMScoreAdj, err = strconv.Atoi(readTrimmed("/proc/self/oom_score_adj"))
	if err != nil {
		return oci.Host{}, fmt.Errorf("read the daemon's oom_score_adj: %w", err)
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
			names = append(names, oci.NormalizeCapability(c.String()))
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

// swapAccounting reports whether the kernel limits swap. On v2 the root cgroup has no limits,
// so another cgroup shows whether the file exists. If no cgroup has memory limits yet, the
// result is whether the kernel supports swap.
func swapAccounting(cg Controllers, swaps string) bool {
	if !cg.V2() {
		return exists(cg.Dir("memory", "/") + "/memory.memsw.limit_in_bytes")
	}
	limited, _ := filepath.Glob(cg.Dir("", "/") + "/*/memory.max")
	for _, file := range limited {
		if exists(filepath.Join(filepath.Dir(file), "memory.swap.max")) {
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

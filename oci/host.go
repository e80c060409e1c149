package oci

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Host contains the limits of the host and of the privileges of the daemon.
type Host struct {
	CgroupV2 bool
	Hugetlb  bool // OCI runtimes can use the hugetlb controller
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
	// Live has the facts that can change while the daemon runs. With nil, they are unknown.
	Live LiveFacts
	// Capabilities are the capabilities that the daemon can give to containers, sorted.
	Capabilities []string
	// OOMScoreAdj and HardRlimits are the values of the daemon's process.
	OOMScoreAdj int
	HardRlimits map[string]uint64
	// MaxOpenFiles is fs.nr_open, the maximum of RLIMIT_NOFILE; 0 if unknown.
	MaxOpenFiles uint64
}

// LiveFacts are facts about a host that can change while the daemon runs. Package host reads them.
type LiveFacts interface {
	// OnlineCPUs and OnlineNodes list the online CPUs and memory nodes in the format "0-3,7"; ""
	// if unknown.
	OnlineCPUs() string
	OnlineNodes() string
	// UnifiedRule returns the rule that a key of unified resources breaks, or "" for a key that
	// may be valid.
	UnifiedRule(key string) string
}

// FitRlimits returns the limits, lowered to the maximum on this host, and a warning
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

// live returns the live facts of the host.
func (h *Host) live() LiveFacts {
	if h.Live == nil {
		return unknownFacts{}
	}
	return h.Live
}

// unknownFacts are the live facts of an unknown host.
type unknownFacts struct{}

func (unknownFacts) OnlineCPUs() string        { return "" }
func (unknownFacts) OnlineNodes() string       { return "" }
func (unknownFacts) UnifiedRule(string) string { return "" }

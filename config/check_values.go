package config

import (
	"errors"
	"fmt"
	"math"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/capability"
)

// maxPids is the kernel's PID_MAX_LIMIT, the greatest limit of processes that a
// cgroup can have.
const maxPids = 1 << 22

var (
	groupName     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*\$?$`)
	pluginName    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	annotationKey = regexp.MustCompile(`^[A-Za-z0-9_./-]+$`)
	sysctlName    = regexp.MustCompile(`^[a-z][A-Za-z0-9_.-]*([./][A-Za-z0-9_.-]+)*$`)
)

// podSysctls are the sysctls that a namespace of a pod can confine, as patterns.
// Package sandbox refuses all others in requests.
var podSysctls = []string{"kernel.shm*", "kernel.msg*", "kernel.sem", "kernel.domainname", "fs.mqueue.*", "net.*"}

// CheckCgroupParent says which rule a parent of pods' cgroups breaks under a
// driver, if any: cgroupfs has paths, systemd has slices, and auto can become
// either.
func CheckCgroupParent(driver, parent string) error {
	if strings.HasSuffix(parent, ".slice") {
		name := path.Base(parent)
		switch {
		case driver == "cgroupfs":
			return fmt.Errorf("must be a path and no slice, as the cgroup driver is cgroupfs; is %q", parent)
		case strings.ContainsAny(parent, "\n\x00:") || slices.Contains(strings.Split(parent, "/"), "..") ||
			strings.HasPrefix(name, "-") || strings.Contains(name, "--") || strings.Contains(name, "-.slice") || name == ".slice":
			return fmt.Errorf("must be the name of a slice, as in criserver.slice; is %q", parent)
		}
		return nil
	}
	switch {
	case driver == "systemd":
		return fmt.Errorf("must be the name of a slice, as the cgroup driver is systemd; is %q", parent)
	case !filepath.IsAbs(parent) || filepath.Clean(parent) != parent || parent == "/" || strings.ContainsAny(parent, "\n\x00:"):
		return fmt.Errorf("must be an absolute path below the root, without . and .., or the name of a slice; is %q", parent)
	}
	return nil
}

func isGroup(s string) bool {
	if id, err := strconv.ParseUint(s, 10, 64); err == nil {
		return id <= math.MaxInt32
	}
	return groupName.MatchString(s)
}

// isCapability accepts the spellings of NET_ADMIN that requests can have. ALL is
// no capability.
func isCapability(s string) bool {
	name := strings.TrimPrefix(strings.ToUpper(s), "CAP_")
	return slices.ContainsFunc(capability.ListKnown(), func(c capability.Cap) bool { return strings.EqualFold(c.String(), name) })
}

// isPinnedPattern: the store knows images by their full names only, so that a
// shorter one would pin nothing.
func isPinnedPattern(s string) bool {
	if s == "" || strings.ContainsFunc(s, notPrintable) {
		return false
	}
	body, prefix := strings.CutSuffix(s, "*")
	if prefix {
		return !strings.Contains(strings.TrimPrefix(body, "*"), "*")
	}
	repository := s[strings.LastIndexByte(s, '/')+1:]
	return !strings.Contains(s, "*") && strings.Contains(s, "/") && strings.ContainsAny(repository, ":@")
}

// isSysctlPattern says whether a pattern is well formed and can match a sysctl that
// is a pod's own.
func isSysctlPattern(s string) bool {
	prefix, open := strings.CutSuffix(s, "*")
	if !sysctlName.MatchString(strings.TrimRight(prefix, "./")) || strings.Contains(prefix, "*") || strings.Contains(prefix, "..") {
		return false
	}
	prefix = strings.ReplaceAll(prefix, "/", ".")
	return slices.ContainsFunc(podSysctls, func(known string) bool {
		family, many := strings.CutSuffix(known, "*")
		return prefix == family && !many || many && strings.HasPrefix(prefix, family) && prefix != family ||
			open && strings.HasPrefix(family, prefix)
	})
}

func isAnnotationPattern(s string) bool {
	return s == "*" || annotationKey.MatchString(strings.TrimSuffix(s, "*"))
}

func isProfileName(s string) bool {
	return !strings.ContainsFunc(s, notPrintable) && s != "unconfined" && !strings.HasPrefix(s, "localhost/")
}

func notPrintable(r rune) bool { return r <= ' ' || r == 0x7f }

// Ulimit is a resource limit of processes.
type Ulimit struct {
	Name       string // as in "nofile"
	Soft, Hard uint64 // math.MaxUint64 for no limit
}

// ulimitNames are the resource limits of Linux, as in "ulimit" of the shell and
// setrlimit(2).
var ulimitNames = []string{
	"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
}

// ParseUlimit reads NAME=SOFT:HARD, or NAME=BOTH.
func ParseUlimit(s string) (Ulimit, error) {
	name, limits, _ := strings.Cut(s, "=")
	if !slices.Contains(ulimitNames, name) {
		return Ulimit{}, fmt.Errorf("must be of the form NAME=SOFT:HARD, with a NAME of %s; has %q", strings.Join(ulimitNames, ", "), s)
	}
	soft, hard, both := strings.Cut(limits, ":")
	if !both {
		hard = soft
	}
	u := Ulimit{Name: name}
	var errs [2]error
	u.Soft, errs[0] = parseLimit(soft)
	u.Hard, errs[1] = parseLimit(hard)
	if errors.Join(errs[:]...) != nil || u.Soft > u.Hard {
		return Ulimit{}, fmt.Errorf(`SOFT and HARD must be numbers or "unlimited", and SOFT must not be above HARD; has %q`, s)
	}
	return u, nil
}

func parseLimit(s string) (uint64, error) {
	if s == "unlimited" {
		return math.MaxUint64, nil
	}
	return strconv.ParseUint(s, 10, 63)
}

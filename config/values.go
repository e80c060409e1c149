package config

import (
	"crypto/tls"
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

const (
	// maxSocketPath is the size of the path in sockaddr_un without the terminating NUL.
	maxSocketPath = 107
	// maxPids is PID_MAX_LIMIT of the kernel, the highest limit of processes in a cgroup.
	maxPids = 1 << 22
	// minLogSize is the smallest limit of a log in bytes. It is larger than one
	// write of the monitor.
	minLogSize = 1 << 20
)

var (
	// networkName is the syntax of network names in the CNI specification.
	networkName   = regexp.MustCompile(`^[a-zA-Z0-9][-a-zA-Z0-9_.]*$`)
	handlerName   = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$`)
	groupName     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*\$?$`)
	pluginName    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	annotationKey = regexp.MustCompile(`^[A-Za-z0-9_./-]+$`)
	sysctlName    = regexp.MustCompile(`^[a-z][A-Za-z0-9_.-]*([./][A-Za-z0-9_.-]+)*$`)
)

// podSysctls contains patterns of the sysctls that belong to a namespace of a pod. Package
// sandbox refuses requests for all others.
var podSysctls = []string{"kernel.shm*", "kernel.msg*", "kernel.sem", "kernel.domainname", "fs.mqueue.*", "net.*"}

// CheckCgroupParent returns an error if parent is not a valid cgroup parent for a cgroup
// driver. The driver cgroupfs needs a path, and the driver systemd needs a slice. The driver
// auto accepts both.
func CheckCgroupParent(driver, parent string) error {
	if strings.HasSuffix(parent, ".slice") {
		name := path.Base(parent)
		switch {
		case driver == CgroupDriverCgroupfs:
			return fmt.Errorf("must be a path and not a slice, because the cgroup driver is cgroupfs; is %q", parent)
		case strings.ContainsAny(parent, "\n\x00:") || slices.Contains(strings.Split(parent, "/"), "..") ||
			strings.HasPrefix(name, "-") || strings.Contains(name, "--") || strings.Contains(name, "-.slice") || name == ".slice":
			return fmt.Errorf("must be the name of a slice, as in criserver.slice; is %q", parent)
		}
		return nil
	}
	switch {
	case driver == CgroupDriverSystemd:
		return fmt.Errorf("must be the name of a slice, because the cgroup driver is systemd; is %q", parent)
	case !filepath.IsAbs(parent) || filepath.Clean(parent) != parent || parent == "/" || strings.ContainsAny(parent, "\n\x00:"):
		return fmt.Errorf("must be an absolute path below the root, without . and .., or the name of a slice; is %q", parent)
	}
	return nil
}

// isGroup reports whether s is the name or the ID of a group.
func isGroup(s string) bool {
	if id, err := strconv.ParseUint(s, 10, 64); err == nil {
		return id <= math.MaxInt32
	}
	return groupName.MatchString(s)
}

// isCapability reports whether s is the name of a capability. As in requests, the name may be
// in lower case, and may have the prefix CAP_. ALL is not a capability.
func isCapability(s string) bool {
	name := strings.TrimPrefix(strings.ToUpper(s), "CAP_")
	return slices.ContainsFunc(capability.ListKnown(), func(c capability.Cap) bool { return strings.EqualFold(c.String(), name) })
}

// isPinnedPattern reports whether s is a pattern of image.pinned. The image store has only
// full names, so a short name would match no image.
func isPinnedPattern(s string) bool {
	if s == "" || strings.ContainsFunc(s, isControlOrSpace) {
		return false
	}
	body, prefix := strings.CutSuffix(s, "*")
	if prefix {
		return !strings.Contains(strings.TrimPrefix(body, "*"), "*")
	}
	repository := s[strings.LastIndexByte(s, '/')+1:]
	return !strings.Contains(s, "*") && strings.Contains(s, "/") && strings.ContainsAny(repository, ":@")
}

// isSysctlPattern reports whether a pattern is well-formed and can match one of podSysctls.
func isSysctlPattern(s string) bool {
	prefix, isPrefix := strings.CutSuffix(s, "*")
	if !sysctlName.MatchString(strings.TrimRight(prefix, "./")) || strings.Contains(prefix, "*") || strings.Contains(prefix, "..") {
		return false
	}
	prefix = strings.ReplaceAll(prefix, "/", ".")
	return slices.ContainsFunc(podSysctls, func(podSysctl string) bool {
		family, isFamily := strings.CutSuffix(podSysctl, "*")
		return prefix == family && !isFamily || isFamily && strings.HasPrefix(prefix, family) && prefix != family ||
			isPrefix && strings.HasPrefix(family, prefix)
	})
}

func isAnnotationPattern(s string) bool {
	return s == "*" || annotationKey.MatchString(strings.TrimSuffix(s, "*"))
}

func isProfileName(s string) bool {
	return !strings.ContainsFunc(s, isControlOrSpace) && s != "unconfined" && !strings.HasPrefix(s, "localhost/")
}

func isControlOrSpace(r rune) bool { return r <= ' ' || r == 0x7f }

// Ulimit is a resource limit of processes.
type Ulimit struct {
	Name       string // for example "nofile"
	Soft, Hard uint64 // math.MaxUint64 means unlimited
}

// ulimitNames contains the names of the resource limits of Linux. setrlimit(2) has the same
// names in upper case with the prefix RLIMIT_.
var ulimitNames = []string{
	"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
}

// ParseUlimit parses NAME=SOFT:HARD or NAME=BOTH.
func ParseUlimit(s string) (Ulimit, error) {
	name, limits, _ := strings.Cut(s, "=")
	if !slices.Contains(ulimitNames, name) {
		return Ulimit{}, fmt.Errorf("must be of the form NAME=SOFT:HARD, where NAME is one of %s; has %q", strings.Join(ulimitNames, ", "), s)
	}
	soft, hard, found := strings.Cut(limits, ":")
	if !found {
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

// isBelow reports whether a clean path is dir or below dir.
func isBelow(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// CipherSuites returns the cipher suites with these names, without the suites of TLS 1.3, which
// cannot be chosen. The error says which names are allowed. If the list has no suite of TLS
// 1.2 but is not empty, the result is an empty list that is not nil.
func CipherSuites(names []string) ([]uint16, error) {
	if len(names) == 0 {
		return nil, nil
	}
	suites := []uint16{}
	for _, name := range names {
		i := slices.IndexFunc(tls.CipherSuites(), func(c *tls.CipherSuite) bool { return c.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("must be names of secure cipher suites: %s; has %q", strings.Join(secureSuites(), ", "), name)
		}
		if c := tls.CipherSuites()[i]; slices.Contains(c.SupportedVersions, tls.VersionTLS12) {
			suites = append(suites, c.ID)
		}
	}
	return suites, nil
}

func secureSuites() []string {
	var names []string
	for _, c := range tls.CipherSuites() {
		names = append(names, c.Name)
	}
	return names
}

// isEnv reports whether s has the form NAME=VALUE.
func isEnv(s string) bool {
	name, _, found := strings.Cut(s, "=")
	return found && name != "" && !strings.ContainsRune(s, 0)
}

// ParseSysctl parses NAME=VALUE, where NAME is one of podSysctls.
func ParseSysctl(s string) (name, value string, err error) {
	name, value, _ = strings.Cut(s, "=")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	if strings.HasSuffix(name, "*") || !isSysctlPattern(name) {
		return "", "", fmt.Errorf("must be of the form NAME=VALUE, where NAME is a sysctl that belongs to a namespace of the pod (%s); has %q",
			strings.Join(podSysctls, ", "), s)
	}
	if value == "" || strings.ContainsFunc(value, func(r rune) bool { return r != ' ' && r != '\t' && (r < '!' || r > '~') }) {
		return "", "", fmt.Errorf("must have a value of printable characters after the =; has %q", s)
	}
	return name, value, nil
}

// Device is a device of the host and its path in containers.
type Device struct {
	HostPath, ContainerPath string
	Access                  string // made of r, w and m; "" means all
}

// ParseDevice parses HOST_PATH[:CONTAINER_PATH[:ACCESS]].
func ParseDevice(s string) (Device, error) {
	parts := strings.Split(s, ":")
	d := Device{HostPath: parts[0], ContainerPath: parts[0]}
	if len(parts) > 1 {
		d.ContainerPath = parts[1]
	}
	if len(parts) > 2 {
		d.Access = parts[2]
	}
	for _, p := range []string{d.HostPath, d.ContainerPath} {
		if !filepath.IsAbs(p) || filepath.Clean(p) != p || p == "/" {
			return Device{}, fmt.Errorf("must be of the form HOST_PATH:CONTAINER_PATH:ACCESS with absolute paths without . and ..; has %q", s)
		}
	}
	if len(parts) > 3 || strings.Trim(d.Access, "rwm") != "" || len(d.Access) > 3 || len(parts) == 3 && d.Access == "" {
		return Device{}, fmt.Errorf("must have r, w, m or a combination of them as the access; has %q", s)
	}
	return d, nil
}

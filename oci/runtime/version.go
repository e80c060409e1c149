package runtime

import (
	"context"
	"regexp"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go/features"
)

// release is a version within one minor version. rc is 0 for a final release.
type release struct{ patch, rc int }

// before reports whether r was released before o.
func (r release) before(o release) bool {
	return r.patch < o.patch || r.patch == o.patch && r.rc != 0 && (o.rc == 0 || r.rc < o.rc)
}

// firstSafeRunc contains, by minor version, the first runc 1.x releases without the
// vulnerabilities by which a container can redirect masked paths and procfs to write to the
// host's /proc. Minor versions before the first key have no safe release; minor versions after
// the last key are safe.
var firstSafeRunc = map[int]release{2: {patch: 8}, 3: {patch: 3}, 4: {rc: 3}}

const lastUnsafeRuncMinor = 4

// versionLine matches the first line of the output of --version. The last group is the suffix of a distribution, as in
// "1.1.5+ds1" or "1.1.7-0ubuntu1".
var versionLine = regexp.MustCompile(`^(runc|crun) version v?(\d+)\.(\d+)(?:\.(\d+))?(?:[-~]rc\.?(\d+))?([-+~]\S+)?`)

// Vulnerability returns a description of a vulnerability of the runtime with this version line,
// or "". It returns "" for lines of another format.
func Vulnerability(line string) string {
	flaw := vulnerability(line)
	if m := versionLine.FindStringSubmatch(line); flaw != "" && m[6] != "" {
		_, version, _ := strings.Cut(m[0], " version ")
		flaw += "; the distribution may have fixed it in its " + version
	}
	return flaw
}

func vulnerability(line string) string {
	m := versionLine.FindStringSubmatch(line)
	if m == nil {
		return ""
	}
	number := func(i int) int { v, _ := strconv.Atoi(m[i]); return v }
	major, minor, rel := number(2), number(3), release{number(4), number(5)}
	switch m[1] {
	case "runc":
		if major == 0 || major == 1 && (minor == 0 || minor == 1 && rel.before(release{patch: 12})) {
			return "runc before 1.1.12 lets a container reach the host's file system by its working directory (CVE-2024-21626), and more"
		}
		safe, ok := firstSafeRunc[minor]
		if major == 1 && minor <= lastUnsafeRuncMinor && (!ok || rel.before(safe)) {
			return "runc before 1.2.8, 1.3.3 and 1.4.0-rc.3 lets a container write to the host's /proc (CVE-2025-31133, CVE-2025-52565, CVE-2025-52881)"
		}
	case "crun":
		if major == 0 || major == 1 && (minor < 4 || minor == 4 && rel.before(release{patch: 4})) {
			return "crun before 1.4.4 gives containers inheritable capabilities (CVE-2022-27650)"
		}
	}
	return ""
}

// DetectFeatures returns the features of the runtime. A runtime that is too old for the
// features command gets the features of the version in line. If that version is unknown,
// DetectFeatures returns the runtime's error.
func (r *Runtime) DetectFeatures(ctx context.Context, line string) (*features.Features, error) {
	f, err := r.Features(ctx)
	if err == nil {
		return f, nil
	}
	if old := featuresByVersion(line); old != nil {
		return old, nil
	}
	return nil, err
}

// featuresByVersion returns features of crun, which has recursive read-only mounts since 1.4
// and the features command since 1.8.6. Other features count as missing. It returns nil for
// other runtimes.
func featuresByVersion(line string) *features.Features {
	m := versionLine.FindStringSubmatch(line)
	if m == nil || m[1] != "crun" {
		return nil
	}
	major, _ := strconv.Atoi(m[2])
	minor, _ := strconv.Atoi(m[3])
	f := &features.Features{OCIVersionMin: "1.0.0", OCIVersionMax: "1.1.0"}
	if major > 1 || major == 1 && minor >= 4 {
		f.MountOptions = []string{"rro"}
	}
	return f
}

package oci

import (
	"regexp"
	"strconv"
)

// release is a version within one minor line; rc is 0 for a final one.
type release struct{ patch, rc int }

// before says whether r came out earlier than o.
func (r release) before(o release) bool {
	return r.patch < o.patch || r.patch == o.patch && r.rc != 0 && (o.rc == 0 || r.rc < o.rc)
}

// safeRunc are the first runc 1.x releases, by minor version, without the
// redirections of masked paths and of procfs by which a container writes to the
// host's /proc. Minors before the first have none, those after the last are safe.
var safeRunc = map[int]release{2: {patch: 8}, 3: {patch: 3}, 4: {rc: 3}}

const lastSafeMinor = 4

var versionLine = regexp.MustCompile(`^(runc|crun) version v?(\d+)\.(\d+)(?:\.(\d+))?(?:[-~]rc\.?(\d+))?`)

// KnownFlaw says what is known to be wrong with a runtime of this version line,
// or "". A line of another form is not judged.
func KnownFlaw(line string) string {
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
		safe, known := safeRunc[minor]
		if major == 1 && minor <= lastSafeMinor && (!known || rel.before(safe)) {
			return "runc before 1.2.8, 1.3.3 and 1.4.0-rc.3 lets a container write to the host's /proc (CVE-2025-31133, CVE-2025-52565, CVE-2025-52881)"
		}
	case "crun":
		if major == 0 || major == 1 && (minor < 4 || minor == 4 && rel.before(release{patch: 4})) {
			return "crun before 1.4.4 gives containers inheritable capabilities (CVE-2022-27650)"
		}
	}
	return ""
}

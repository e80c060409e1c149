package node

import (
	"cmp"
	"regexp"
	"runtime/debug"
	"strings"
)

// semantic is the syntax of semver.org, without the "v" of tags.
var semantic = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
	`(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$`)

var commit = regexp.MustCompile(`^[0-9a-f]{7,64}(-dirty)?$`)

// SemanticVersion returns the version of this binary. linkerVersion is the output of
// git-describe(1): a tag, a tag with a suffix, a commit, or empty. The result is always a semantic
// version, because the kubelet shows any other version as "Unknown".
func SemanticVersion(linkerVersion string) string {
	moduleVersion := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		moduleVersion = info.Main.Version
	}
	return toSemantic(linkerVersion, moduleVersion)
}

// toSemantic converts the version that the linker set, or the version of the main module if
// the linker set none. A commit becomes a pre-release of 0.0.0. The letter g before the
// commit is necessary because a number in a semantic version must not have leading zeros.
func toSemantic(linkerVersion, moduleVersion string) string {
	version := cmp.Or(linkerVersion, moduleVersion)
	if v := strings.TrimPrefix(version, "v"); semantic.MatchString(v) {
		return v
	}
	if commit.MatchString(version) {
		return "0.0.0-g" + version
	}
	return "0.0.0-unknown"
}

// buildCommit returns the commit from which this binary was built, with the suffix "-dirty" if the
// source tree had changes, or "" if the build does not contain it.
func buildCommit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	settings := make(map[string]string)
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	revision := settings["vcs.revision"]
	if revision != "" && settings["vcs.modified"] == "true" {
		revision += "-dirty"
	}
	return revision
}

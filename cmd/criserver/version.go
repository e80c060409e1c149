package main

import (
	"cmp"
	"regexp"
	"runtime/debug"
	"strings"
)

// version is set by the linker to the output of git-describe(1): a tag, a tag with a suffix, or
// a commit.
var version string

// semantic is the syntax of semver.org, without the "v" of tags.
var semantic = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
	`(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$`)

var commit = regexp.MustCompile(`^[0-9a-f]{7,64}(-dirty)?$`)

// semanticVersion returns the version of this binary. It is always a semantic version, because
// the kubelet shows any other version as "Unknown".
func semanticVersion() string {
	moduleVersion := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		moduleVersion = info.Main.Version
	}
	return toSemantic(version, moduleVersion)
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

package main

import (
	"regexp"
	"runtime/debug"
	"strings"
)

// version is set by the linker: a tag, what git-describe(1) makes of one, or a commit.
var version string

// semantic is the form of semver.org, without the "v" of tags.
var semantic = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
	`(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$`)

var commit = regexp.MustCompile(`^[0-9a-f]{7,64}(-dirty)?$`)

// release is the version of this daemon. It is always a semantic one: the kubelet
// shows any other as "Unknown".
func release() string {
	built := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		built = info.Main.Version
	}
	return semanticVersion(version, built)
}

// semanticVersion makes a version of what the linker was given, or else of what Go
// has found out about the main module. A commit becomes a pre-release of 0.0.0; the
// letter before it keeps a commit of digits from being a number with leading zeros.
func semanticVersion(linked, built string) string {
	if linked == "" {
		linked = built
	}
	if v := strings.TrimPrefix(linked, "v"); semantic.MatchString(v) {
		return v
	}
	if commit.MatchString(linked) {
		return "0.0.0-g" + linked
	}
	return "0.0.0-unknown"
}

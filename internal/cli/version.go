package cli

import (
	"cmp"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// semantic is the syntax of semver.org, without the "v" of tags.
var semantic = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
	`(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$`)

var commit = regexp.MustCompile(`^[0-9a-f]{7,64}(-dirty)?$`)

// semanticVersion returns the version of this binary. linkerVersion is the output of
// git-describe(1): a tag, a tag with a suffix, a commit, or empty. The result is always a semantic
// version, because the kubelet shows any other version as "Unknown".
func semanticVersion(linkerVersion string) string {
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

func newVersionCommand(env *environment) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := versionInfo{Version: env.version, Commit: buildCommit(), GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			return out.print(env.stdout, v, func(t *table) { t.line("criserver %s", v.Version) })
		},
	}
	out.addFlag(cmd)
	return cmd
}

// versionInfo is the output of the command version.
type versionInfo struct {
	Version   string `json:"version"`
	Commit    string `json:"commit,omitempty"`
	GoVersion string `json:"goVersion"`
	Platform  string `json:"platform"`
}

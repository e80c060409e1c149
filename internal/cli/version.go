package cli

import (
	"cmp"
	"context"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	adminv1 "github.com/criserver/criserver/admin/v1"
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
	var client bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of this program and of the running daemon",
		Long: `Print the versions of this program and of the running daemon. If the daemon does not run, or
the user may not connect to it, only the version of the program is printed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versions{Client: versionInfo{
				Version: env.version, Commit: buildCommit(), GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
			}}
			if !client {
				v.Daemon = env.daemonVersion(cmd)
			}
			return out.print(env.stdout, v, func(t *table) { writeVersions(t, v) })
		},
	}
	cmd.Flags().BoolVar(&client, "client", false, "print only the version of this program")
	out.addFlag(cmd)
	env.addConnectionFlags(cmd)
	return cmd
}

// versions is the output of the command version.
type versions struct {
	Client versionInfo  `json:"client"`
	Daemon *versionInfo `json:"daemon,omitempty"` // nil if the daemon does not answer
}

// versionInfo describes a build.
type versionInfo struct {
	Version   string `json:"version"`
	Commit    string `json:"commit,omitempty"`
	GoVersion string `json:"goVersion"`
	Platform  string `json:"platform"`
}

// daemonVersionTimeout bounds the wait for the answer of the daemon.
const daemonVersionTimeout = 5 * time.Second

// daemonVersion returns the version of the running daemon, or nil if the daemon does not answer.
func (e *environment) daemonVersion(cmd *cobra.Command) *versionInfo {
	ctx, cancel := context.WithTimeout(cmd.Context(), daemonVersionTimeout)
	defer cancel()
	conn, err := e.adminConnection(ctx)
	if err != nil {
		return nil
	}
	r, err := adminv1.NewDaemonClient(conn).GetVersion(ctx, &adminv1.GetVersionRequest{})
	if err != nil {
		return nil
	}
	return &versionInfo{Version: r.GetVersion(), Commit: r.GetCommit(), GoVersion: r.GetGoVersion(), Platform: r.GetPlatform()}
}

// writeVersions writes the versions. The first line begins with "criserver" and the version of
// the program.
func writeVersions(t *table, v versions) {
	write := func(name string, i *versionInfo) {
		t.line("%s %s (%s, %s, commit %s)", name, i.Version, i.GoVersion, i.Platform, cmp.Or(i.Commit, "unknown"))
	}
	write("criserver", &v.Client)
	if v.Daemon != nil {
		write("daemon", v.Daemon)
	}
}

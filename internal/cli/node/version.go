package node

import (
	"cmp"
	"context"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cli/command"
)

func newVersionCommand(env *command.Environment) *cobra.Command {
	var out command.Output
	var client bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of this program and of the running daemon",
		Long: `Print the versions of this program and of the running daemon. If the daemon does not run, or
the user may not connect to it, only the version of the program is printed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versions{Client: versionInfo{
				Version: env.Version, Commit: buildCommit(), GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
			}}
			if !client {
				v.Daemon = daemonVersion(cmd.Context(), env)
			}
			return out.Print(env.Stdout, v, func(t *command.Table) { writeVersions(t, v) })
		},
	}
	cmd.Flags().BoolVar(&client, "client", false, "print only the version of this program")
	out.AddFlag(cmd)
	env.AddConnectionFlags(cmd)
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
func daemonVersion(ctx context.Context, env *command.Environment) *versionInfo {
	ctx, cancel := context.WithTimeout(ctx, daemonVersionTimeout)
	defer cancel()
	conn, err := env.AdminConnection(ctx)
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
func writeVersions(t *command.Table, v versions) {
	write := func(name string, i *versionInfo) {
		t.Line("%s %s (%s, %s, commit %s)", name, i.Version, i.GoVersion, i.Platform, cmp.Or(i.Commit, "unknown"))
	}
	write("criserver", &v.Client)
	if v.Daemon != nil {
		write("daemon", v.Daemon)
	}
}

package node

import (
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/internal/cli/command"
	"github.com/criserver/criserver/internal/daemon"
)

// NewServeCommand returns the command that runs the daemon. The command line without a command is the same.
func NewServeCommand(env *command.Environment) *cobra.Command {
	var s command.Settings
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon",
		Long: `Run the daemon until it receives SIGTERM or SIGINT. Containers continue to run when the
daemon ends. Flags take precedence over the configuration files.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.Load()
			if err != nil {
				return err
			}
			unix.Umask(umask)
			if err := daemon.ConfigureLogging(cfg); err != nil {
				return err
			}
			limitMemory()
			d := daemon.New(daemon.Config{Settings: cfg, Version: env.Version, Commit: buildCommit(), Load: s.Load})
			defer handleSignals(cmd.Context(), d)()
			return d.Run(cmd.Context())
		},
	}
	s.AddFlags(cmd)
	return cmd
}

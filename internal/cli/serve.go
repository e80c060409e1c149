package cli

import (
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/internal/daemon"
)

func newServeCommand(env *environment) *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon",
		Long: `Run the daemon until it receives SIGTERM or SIGINT. Containers continue to run when the
daemon ends. Flags take precedence over the configuration files.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			unix.Umask(umask)
			if err := daemon.ConfigureLogging(cfg); err != nil {
				return err
			}
			limitMemory()
			d := daemon.New(daemon.Config{Settings: cfg, Version: env.version, Commit: buildCommit(), Load: s.load})
			defer handleSignals(cmd.Context(), d)()
			return d.Run(cmd.Context())
		},
	}
	s.addFlags(cmd)
	return cmd
}

package node

import (
	"fmt"

	"github.com/spf13/cobra"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cli/command"
)

func newLogLevelCommand(env *command.Environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "log-level [LEVEL]",
		Short: "Print or change the log level of the daemon",
		Long: `Print the log level of the daemon. With an argument, change the level until the daemon ends,
or until a reload changes the key log_level. The levels are trace, debug, info, warning and error.`,
		Args:      cobra.MaximumNArgs(1),
		ValidArgs: []string{"trace", "debug", "info", "warning", "error"},
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := env.AdminConnection(cmd.Context())
			if err != nil {
				return err
			}
			client := adminv1.NewDaemonClient(conn)
			if len(args) == 1 {
				r, err := client.SetLogLevel(cmd.Context(), &adminv1.SetLogLevelRequest{Level: args[0]})
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(env.Stdout, "%s (was %s)\n", args[0], r.GetPreviousLevel())
				return err
			}
			r, err := client.GetLogLevel(cmd.Context(), &adminv1.GetLogLevelRequest{})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(env.Stdout, r.GetLevel())
			return err
		},
	}
	env.AddConnectionFlags(cmd)
	return cmd
}

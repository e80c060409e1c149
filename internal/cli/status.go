package cli

import (
	"time"

	"github.com/spf13/cobra"

	adminv1 "github.com/criserver/criserver/admin/v1"
)

func newStatusCommand(env *environment) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the state of the daemon and of its parts",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := env.adminConnection(cmd.Context())
			if err != nil {
				return err
			}
			s, err := adminv1.NewDaemonClient(conn).GetStatus(cmd.Context(), &adminv1.GetStatusRequest{})
			if err != nil {
				return err
			}
			return out.print(env.stdout, s, func(t *table) { writeStatus(t, s) })
		},
	}
	out.addFlag(cmd)
	env.addConnectionFlags(cmd)
	return cmd
}

// writeStatus writes the state of the daemon.
func writeStatus(t *table, s *adminv1.GetStatusResponse) {
	start := s.GetStartTime().AsTime()
	t.row("version", s.GetVersion().GetVersion())
	t.row("pid", s.GetPid())
	t.row("started", start.Local().Format(time.RFC3339))
	t.row("uptime", time.Since(start).Round(time.Second))
	t.row("start duration", s.GetStartDuration().AsDuration().Round(time.Millisecond))
}

package node

import (
	"fmt"

	"github.com/spf13/cobra"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cli/command"
)

func newReloadCommand(env *command.Environment) *cobra.Command {
	var out command.Output
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Make the daemon read its configuration again",
		Long: `Make the daemon read its configuration files again, and apply the keys that can change
while the daemon runs. The exit code is 1 if the configuration is invalid, in which case the
daemon changes nothing, or if a key could not be applied.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := env.AdminConnection(cmd.Context())
			if err != nil {
				return err
			}
			r, err := adminv1.NewDaemonClient(conn).Reload(cmd.Context(), &adminv1.ReloadRequest{})
			if err != nil {
				return err
			}
			if err := out.Print(env.Stdout, r, func(t *command.Table) { writeReload(t, r) }); err != nil {
				return err
			}
			if n := len(r.GetErrors()); n > 0 {
				return fmt.Errorf("%d keys could not be applied", n)
			}
			return nil
		},
	}
	out.AddFlag(cmd)
	env.AddConnectionFlags(cmd)
	return cmd
}

// writeReload writes the effect of a reload.
func writeReload(t *command.Table, r *adminv1.ReloadResponse) {
	if len(r.GetChanged())+len(r.GetNeedRestart())+len(r.GetErrors()) == 0 {
		t.Line("The configuration has not changed.")
		return
	}
	t.Row("KEY", "OLD", "NEW", "EFFECT")
	for _, c := range r.GetChanged() {
		t.Row(c.GetKey(), c.GetOldValue(), c.GetNewValue(), "applied")
	}
	for _, c := range r.GetNeedRestart() {
		t.Row(c.GetKey(), c.GetOldValue(), c.GetNewValue(), "needs a restart of the daemon")
	}
	for _, e := range r.GetErrors() {
		t.Row(e.GetKey(), "", "", "error: "+e.GetMessage())
	}
}

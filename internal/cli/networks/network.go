// Package networks contains the command that shows the networks of the pods. Package netview draws them.
package networks

import (
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cli/command"
	"github.com/criserver/criserver/internal/cli/networks/netview"
)

// networkOptions are the flags of the command network.
type networkOptions struct {
	svg, dot bool
	file     string
}

// Commands returns the commands of this package.
func Commands(env *command.Environment) []*cobra.Command {
	return []*cobra.Command{newNetworkCommand(env)}
}

func newNetworkCommand(env *command.Environment) *cobra.Command {
	var out command.Output
	var o networkOptions
	cmd := &cobra.Command{
		Use:   "network [POD]",
		Short: "Show the networks of the pods, and find problems",
		Long: `Show what the daemon has set up for the networks of the pods, as the kernel has it now, and
compare it with the records of the daemon.

POD is an id, a unique beginning of an id, or NAMESPACE/NAME. For a pod the command shows the
network namespace, the interfaces and their other ends on the host, the routes, the rules for
masquerading and host ports, DNS, the CNI network, and traffic shaping. Without POD the command
shows an overview of the node.

Each problem has a remedy. The exit code is 1 if there is an error; warnings do not change the
exit code. The command changes nothing.`,
		Example: `  criserver network
  criserver network default/web
  criserver network --svg --file network.svg
  criserver network --dot | dot -Tpng >network.png`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.file != "" && !o.svg && !o.dot {
				return command.UsageErrorf("--file needs --svg or --dot")
			}
			conn, err := env.AdminConnection(cmd.Context())
			if err != nil {
				return err
			}
			req := &adminv1.InspectNetworkRequest{}
			if len(args) == 1 {
				req.Pod = args[0]
			}
			r, err := adminv1.NewNetworkClient(conn).InspectNetwork(cmd.Context(), req)
			if err != nil {
				return err
			}
			if err := showNetwork(env.Stdout, &out, o, r, req.GetPod() != ""); err != nil {
				return err
			}
			if r.GetHasErrors() {
				return command.ErrReported
			}
			return nil
		},
	}
	out.AddFlag(cmd)
	cmd.Flags().BoolVar(&o.svg, "svg", false, "draw the node as an SVG file")
	cmd.Flags().BoolVar(&o.dot, "dot", false, "draw the node as a graph for Graphviz")
	cmd.Flags().StringVar(&o.file, "file", "", "write the drawing to `FILE` instead of stdout")
	cmd.MarkFlagsMutuallyExclusive("svg", "dot", "output")
	env.AddConnectionFlags(cmd)
	return cmd
}

// showNetwork writes the response as the flags say.
func showNetwork(w io.Writer, out *command.Output, o networkOptions, r *adminv1.InspectNetworkResponse, onePod bool) error {
	draw := netview.SVG
	switch {
	case o.dot:
		draw = netview.DOT
	case !o.svg:
		return out.Print(w, r, func(t *command.Table) { writeNetwork(t, r, onePod) })
	}
	if o.file == "" {
		return draw(w, r)
	}
	f, err := os.Create(o.file)
	if err != nil {
		return err
	}
	return errors.Join(draw(f, r), f.Close())
}

package pods

import (
	"io"

	"github.com/spf13/cobra"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cli/command"
	"github.com/criserver/criserver/internal/steps"
	"github.com/criserver/criserver/internal/timeline"
)

func newTraceCommand(env *command.Environment) *cobra.Command {
	var out command.Output
	var svg bool
	cmd := &cobra.Command{
		Use:   "trace POD|CONTAINER",
		Short: "Show the steps of the operations on a pod or container, with their times",
		Long: `Show the steps of the operations on a pod and its containers, or on one container: when each
step began, how long it took, and where it waited. Times are in milliseconds since the first step.

POD is the ID of a pod, the beginning of the ID, or NAMESPACE/NAME. CONTAINER is the ID of a
container, the beginning of the ID, or NAMESPACE/POD/NAME.

The daemon keeps the steps since its start, also of the pods and containers that were removed last.`,
		Example: `  criserver trace default/web
  criserver trace 3f2a -o json
  criserver trace default/web --svg >web.svg`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if svg && cmd.Flags().Changed("output") {
				return command.UsageErrorf("--svg and --output exclude each other")
			}
			conn, err := env.AdminConnection(cmd.Context())
			if err != nil {
				return err
			}
			r, err := adminv1.NewTraceClient(conn).GetTimeline(cmd.Context(), &adminv1.GetTimelineRequest{Reference: args[0]})
			if err != nil {
				return err
			}
			return printTimeline(env.Stdout, out, svg, readTimeline(r.GetTimeline()))
		},
	}
	out.AddFlag(cmd)
	cmd.Flags().BoolVar(&svg, "svg", false, "write a drawing in the format SVG")
	env.AddConnectionFlags(cmd)
	return cmd
}

func printTimeline(w io.Writer, out command.Output, svg bool, t steps.Timeline) error {
	switch {
	case svg:
		return timeline.WriteSVG(w, t)
	case out.Format == command.FormatTable:
		return timeline.WriteTable(w, t)
	}
	return out.Print(w, timeline.NewDocument(t), nil)
}

// readTimeline returns the timeline of a message.
func readTimeline(m *adminv1.Timeline) steps.Timeline {
	t := steps.Timeline{
		Object: steps.Object{Pod: m.GetPodId(), Container: m.GetContainerId(), Name: m.GetName()},
		Begin:  m.GetBeginTime().AsTime(), Removed: m.GetRemoved(), Dropped: int(m.GetDroppedSteps()),
	}
	for _, s := range m.GetSteps() {
		e := steps.Entry{
			Name: s.GetName(), Parent: int(s.GetParent()), Start: s.GetStart().AsDuration(), Duration: s.GetDuration().AsDuration(),
			Running: s.GetRunning(), Waits: s.GetWaits(), Class: steps.Class(s.GetErrorClass()), Error: s.GetError(),
		}
		for _, a := range s.GetAttributes() {
			e.Attrs = append(e.Attrs, steps.Attr{Key: a.GetKey(), Value: a.GetValue()})
		}
		t.Steps = append(t.Steps, e)
	}
	for _, c := range m.GetContainers() {
		t.Containers = append(t.Containers, readTimeline(c))
	}
	return t
}

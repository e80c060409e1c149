package pods

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cli/command"
)

func newCgroupCommand(env *command.Environment) *cobra.Command {
	var out command.Output
	cmd := &cobra.Command{
		Use:   "cgroup CONTAINER",
		Short: "Show the limits of a container as requested and as set, and what it uses",
		Long: `Show the cgroup of a container: the limits of the request next to those that the kernel has,
and the usage with throttling, OOM kills and pressure. It works with cgroup v1 and v2.

CONTAINER is an id, a unique beginning of an id, or NAMESPACE/POD/CONTAINER. The command
changes nothing. The exit code is 1 if a limit differs from the request.`,
		Example: `  criserver cgroup default/web/nginx
  criserver cgroup 3f2a -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := env.AdminConnection(cmd.Context())
			if err != nil {
				return err
			}
			r, err := adminv1.NewCgroupClient(conn).InspectCgroup(cmd.Context(), &adminv1.InspectCgroupRequest{Container: args[0]})
			if err != nil {
				return err
			}
			if err := out.Print(env.Stdout, r, func(t *command.Table) { writeCgroup(t, r) }); err != nil {
				return err
			}
			for _, l := range r.GetLimits() {
				if l.GetDiffers() {
					return command.ErrReported
				}
			}
			return nil
		},
	}
	out.AddFlag(cmd)
	env.AddConnectionFlags(cmd)
	return cmd
}

func writeCgroup(t *command.Table, r *adminv1.InspectCgroupResponse) {
	t.Line("container %s of pod %s/%s (%s)", r.GetName(), r.GetPodNamespace(), r.GetPodName(), command.ShortID(r.GetContainerId()))
	t.Line("cgroup v%d %s", r.GetVersion(), r.GetPath())
	t.Line("")
	t.Row("LIMIT", "SET", "REQUESTED", "EXPECTED")
	for _, l := range r.GetLimits() {
		expected := l.GetExpected()
		if l.GetDiffers() {
			expected += " DIFFERS"
		}
		t.Row(l.GetFile(), l.GetValue(), l.GetRequested(), expected)
	}
	t.Line("")
	writeCgroupUsage(t, r.GetUsage())
	if len(r.GetPressure()) > 0 {
		t.Line("")
		t.Row("PRESSURE", "10 s", "60 s", "300 s", "TOTAL")
		for _, p := range r.GetPressure() {
			writeStall(t, p.GetResource()+", some tasks", p.GetSome())
			writeStall(t, p.GetResource()+", all tasks", p.GetFull())
		}
	}
}

func writeCgroupUsage(t *command.Table, u *adminv1.CgroupUsage) {
	t.Row("USAGE", "VALUE")
	t.Row("cpu time", u.GetCpu().AsDuration().Round(time.Microsecond))
	if u.Periods != nil {
		throttled := fmt.Sprintf("%d of %d periods", u.GetThrottledPeriods(), u.GetPeriods())
		if u.GetThrottled() != nil {
			throttled += fmt.Sprintf(", %s", u.GetThrottled().AsDuration().Round(time.Microsecond))
		}
		t.Row("throttled", throttled)
	}
	t.Row("memory", command.ByteSize(u.GetMemory()))
	t.Row("working set", command.ByteSize(u.GetWorkingSet()))
	t.Row("anonymous memory", command.ByteSize(u.GetRss()))
	t.Row("swap", command.ByteSize(u.GetSwap()))
	if u.MemoryPeak != nil {
		t.Row("highest memory", command.ByteSize(u.GetMemoryPeak()))
	}
	if u.MemoryLimitHits != nil {
		t.Row("memory limit reached", fmt.Sprintf("%d times", u.GetMemoryLimitHits()))
	}
	if u.OomKills != nil {
		t.Row("OOM kills", u.GetOomKills())
	}
	t.Row("tasks", u.GetPids())
	for _, d := range u.GetDevices() {
		t.Row("I/O of "+d.GetDevice(), fmt.Sprintf("read %s in %d operations, written %s in %d operations",
			command.ByteSize(d.GetReadBytes()), d.GetReadOperations(), command.ByteSize(d.GetWriteBytes()), d.GetWriteOperations()))
	}
}

func writeStall(t *command.Table, name string, s *adminv1.CgroupStall) {
	percent := func(v float64) string { return fmt.Sprintf("%.2f%%", v) }
	t.Row(name, percent(s.GetAvg10()), percent(s.GetAvg60()), percent(s.GetAvg300()), s.GetTotal().AsDuration().Round(time.Microsecond))
}

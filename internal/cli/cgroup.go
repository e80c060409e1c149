package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	adminv1 "github.com/criserver/criserver/admin/v1"
)

func newCgroupCommand(env *environment) *cobra.Command {
	var out output
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
			conn, err := env.adminConnection(cmd.Context())
			if err != nil {
				return err
			}
			r, err := adminv1.NewCgroupClient(conn).InspectCgroup(cmd.Context(), &adminv1.InspectCgroupRequest{Container: args[0]})
			if err != nil {
				return err
			}
			if err := out.print(env.stdout, r, func(t *table) { writeCgroup(t, r) }); err != nil {
				return err
			}
			for _, l := range r.GetLimits() {
				if l.GetDiffers() {
					return errReported
				}
			}
			return nil
		},
	}
	out.addFlag(cmd)
	env.addConnectionFlags(cmd)
	return cmd
}

func writeCgroup(t *table, r *adminv1.InspectCgroupResponse) {
	t.line("container %s of pod %s/%s (%s)", r.GetName(), r.GetPodNamespace(), r.GetPodName(), shortID(r.GetContainerId()))
	t.line("cgroup v%d %s", r.GetVersion(), r.GetPath())
	t.line("")
	t.row("LIMIT", "SET", "REQUESTED", "EXPECTED")
	for _, l := range r.GetLimits() {
		expected := l.GetExpected()
		if l.GetDiffers() {
			expected += " DIFFERS"
		}
		t.row(l.GetFile(), l.GetValue(), l.GetRequested(), expected)
	}
	t.line("")
	writeCgroupUsage(t, r.GetUsage())
	if len(r.GetPressure()) > 0 {
		t.line("")
		t.row("PRESSURE", "10 s", "60 s", "300 s", "TOTAL")
		for _, p := range r.GetPressure() {
			writeStall(t, p.GetResource()+", some tasks", p.GetSome())
			writeStall(t, p.GetResource()+", all tasks", p.GetFull())
		}
	}
}

func writeCgroupUsage(t *table, u *adminv1.CgroupUsage) {
	t.row("USAGE", "VALUE")
	t.row("cpu time", u.GetCpu().AsDuration().Round(time.Microsecond))
	if u.Periods != nil {
		throttled := fmt.Sprintf("%d of %d periods", u.GetThrottledPeriods(), u.GetPeriods())
		if u.GetThrottled() != nil {
			throttled += fmt.Sprintf(", %s", u.GetThrottled().AsDuration().Round(time.Microsecond))
		}
		t.row("throttled", throttled)
	}
	t.row("memory", byteSize(u.GetMemory()))
	t.row("working set", byteSize(u.GetWorkingSet()))
	t.row("anonymous memory", byteSize(u.GetRss()))
	t.row("swap", byteSize(u.GetSwap()))
	if u.MemoryPeak != nil {
		t.row("highest memory", byteSize(u.GetMemoryPeak()))
	}
	if u.MemoryLimitHits != nil {
		t.row("memory limit reached", fmt.Sprintf("%d times", u.GetMemoryLimitHits()))
	}
	if u.OomKills != nil {
		t.row("OOM kills", u.GetOomKills())
	}
	t.row("tasks", u.GetPids())
	for _, d := range u.GetDevices() {
		t.row("I/O of "+d.GetDevice(), fmt.Sprintf("read %s in %d operations, written %s in %d operations",
			byteSize(d.GetReadBytes()), d.GetReadOperations(), byteSize(d.GetWriteBytes()), d.GetWriteOperations()))
	}
}

func writeStall(t *table, name string, s *adminv1.CgroupStall) {
	percent := func(v float64) string { return fmt.Sprintf("%.2f%%", v) }
	t.row(name, percent(s.GetAvg10()), percent(s.GetAvg60()), percent(s.GetAvg300()), s.GetTotal().AsDuration().Round(time.Microsecond))
}

// byteSize returns a number of bytes with a binary unit and three significant digits, as in
// "1.50 MiB".
func byteSize(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1023.5 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	digits := 2
	for limit := 9.995; value >= limit && digits > 0; limit *= 10 {
		digits--
	}
	return fmt.Sprintf("%.*f %ciB", digits, value, units[unit])
}

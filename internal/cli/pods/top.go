package pods

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/internal/cli/command"
)

// topOptions are the flags of the command top.
type topOptions struct {
	interval time.Duration
	count    int
	sort     string
}

// topOrders are the orders of the table, by the value of the flag --sort.
var topOrders = map[string]func(a, b *podUsage) int{
	"cpu":    func(a, b *podUsage) int { return cmp.Compare(b.CPUMillicores, a.CPUMillicores) },
	"memory": func(a, b *podUsage) int { return cmp.Compare(b.WorkingSetBytes, a.WorkingSetBytes) },
	"pids":   func(a, b *podUsage) int { return cmp.Compare(b.Processes, a.Processes) },
	"net": func(a, b *podUsage) int {
		return cmp.Compare(b.ReceivedBytesPerSecond+b.SentBytesPerSecond, a.ReceivedBytesPerSecond+a.SentBytesPerSecond)
	},
	"name": func(a, b *podUsage) int { return cmp.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name) },
}

// minInterval is the shortest interval of the command top. The daemon reads the stats of a pod
// at most once a second.
const minInterval = time.Second

func newTopCommand(env *command.Environment) *cobra.Command {
	var out command.Output
	o := topOptions{interval: 2 * time.Second, sort: "cpu"}
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show what the pods use, again and again",
		Long: `Show the CPU, memory, network traffic and processes of the ready pods. The values of CPU and
network are averages over the last interval. Press Ctrl-C to end the command.

With -o json or yaml, or if the output is not a terminal, the tables follow each other and the
screen is not cleared.`,
		Example: `  criserver top
  criserver top --count 1 --sort memory`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case o.interval < minInterval:
				return command.UsageErrorf("--interval: must be at least %s, is %s", minInterval, o.interval)
			case o.count < 0:
				return command.UsageErrorf("--count: must not be negative, is %d", o.count)
			case topOrders[o.sort] == nil:
				return command.UsageErrorf("--sort: must be one of cpu, memory, pids, net, name; is %q", o.sort)
			}
			client, err := env.RuntimeClient(cmd.Context())
			if err != nil {
				return err
			}
			return runTop(cmd.Context(), env, client, &out, o)
		},
	}
	out.AddFlag(cmd)
	cmd.Flags().DurationVar(&o.interval, "interval", o.interval, "`time` between two tables, at least 1s")
	cmd.Flags().IntVar(&o.count, "count", 0, "`number` of tables; 0: no limit")
	cmd.Flags().StringVar(&o.sort, "sort", o.sort, "`order` of the pods: cpu, memory, pids, net or name")
	_ = cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions([]string{"cpu", "memory", "pids", "net", "name"}, cobra.ShellCompDirectiveNoFileComp))
	env.AddConnectionFlags(cmd)
	return cmd
}

// podUsage is the resource usage of a pod. The names in JSON are part of the interface of the command.
type podUsage struct {
	ID                     string  `json:"id"`
	Name                   string  `json:"name"`
	Namespace              string  `json:"namespace"`
	CPUMillicores          float64 `json:"cpuMillicores"`
	WorkingSetBytes        uint64  `json:"workingSetBytes"`
	MemoryBytes            uint64  `json:"memoryBytes"`
	ReceivedBytesPerSecond float64 `json:"receivedBytesPerSecond"`
	SentBytesPerSecond     float64 `json:"sentBytesPerSecond"`
	Processes              uint64  `json:"processes"`
	Containers             int     `json:"containers"`
}

// runTop prints tables until ctx ends or the number of tables is reached. Rates need two
// samples, so the first table appears after one interval.
func runTop(ctx context.Context, env *command.Environment, client cri.RuntimeServiceClient, out *command.Output, o topOptions) error {
	clearScreen := out.Format == command.FormatTable && command.IsTerminal(env.Stdout)
	before, err := podStats(ctx, client)
	if err != nil {
		return err
	}
	for n := 0; o.count == 0 || n < o.count; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(o.interval):
		}
		now, err := podStats(ctx, client)
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		list := usageBetween(before, now)
		slices.SortStableFunc(list, topOrders[o.sort])
		if clearScreen {
			fmt.Fprint(env.Stdout, "\x1b[H\x1b[2J")
		}
		if err := out.Print(env.Stdout, list, func(t *command.Table) { writeTop(t, list) }); err != nil {
			return err
		}
		before = now
	}
	return nil
}

// podStats returns the stats of the ready pods by id.
func podStats(ctx context.Context, client cri.RuntimeServiceClient) (map[string]*cri.PodSandboxStats, error) {
	r, err := client.ListPodSandboxStats(ctx, &cri.ListPodSandboxStatsRequest{})
	if err != nil {
		return nil, err
	}
	stats := make(map[string]*cri.PodSandboxStats, len(r.GetStats()))
	for _, s := range r.GetStats() {
		stats[s.GetAttributes().GetId()] = s
	}
	return stats, nil
}

// usageBetween returns the usage of the pods that are in both samples, in the order of their
// names.
func usageBetween(before, now map[string]*cri.PodSandboxStats) []*podUsage {
	list := []*podUsage{}
	for id, n := range now {
		b := before[id].GetLinux()
		if b == nil || n.GetLinux() == nil {
			continue
		}
		l, meta := n.GetLinux(), n.GetAttributes().GetMetadata()
		u := &podUsage{
			ID: id, Name: meta.GetName(), Namespace: meta.GetNamespace(),
			WorkingSetBytes: l.GetMemory().GetWorkingSetBytes().GetValue(), MemoryBytes: l.GetMemory().GetUsageBytes().GetValue(),
			Processes: l.GetProcess().GetProcessCount().GetValue(), Containers: len(l.GetContainers()),
		}
		// A core that works all the time uses 1000 millicores: a nanosecond in each nanosecond.
		u.CPUMillicores = 1000 * rate(b.GetCpu().GetUsageCoreNanoSeconds(), l.GetCpu().GetUsageCoreNanoSeconds(), b.GetCpu().GetTimestamp(), l.GetCpu().GetTimestamp())
		bi, ni := b.GetNetwork().GetDefaultInterface(), l.GetNetwork().GetDefaultInterface()
		bt, nt := b.GetNetwork().GetTimestamp(), l.GetNetwork().GetTimestamp()
		const second = float64(time.Second)
		u.ReceivedBytesPerSecond = second * rate(bi.GetRxBytes(), ni.GetRxBytes(), bt, nt)
		u.SentBytesPerSecond = second * rate(bi.GetTxBytes(), ni.GetTxBytes(), bt, nt)
		list = append(list, u)
	}
	slices.SortFunc(list, topOrders["name"])
	return list
}

// rate returns the growth of a counter per nanosecond, or 0 if it is not known. A counter that
// is lower than before belongs to a new container.
func rate(before, now *cri.UInt64Value, t1, t2 int64) float64 {
	if before == nil || now == nil || t2 <= t1 || now.GetValue() < before.GetValue() {
		return 0
	}
	return float64(now.GetValue()-before.GetValue()) / float64(t2-t1)
}

func writeTop(t *command.Table, list []*podUsage) {
	t.Row("POD", "CPU", "WORKING SET", "MEMORY", "RECEIVED/s", "SENT/s", "PROCESSES", "CONTAINERS")
	for _, u := range list {
		t.Row(strings.Join([]string{u.Namespace, u.Name}, "/"), fmt.Sprintf("%.1f%%", u.CPUMillicores/10), command.ByteSize(u.WorkingSetBytes), command.ByteSize(u.MemoryBytes),
			command.ByteSize(uint64(u.ReceivedBytesPerSecond)), command.ByteSize(uint64(u.SentBytesPerSecond)), u.Processes, u.Containers)
	}
}

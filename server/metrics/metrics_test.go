package metrics

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/criserver/criserver/checkpoint"
	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/image"
	"github.com/criserver/criserver/internal/steps"
	"github.com/criserver/criserver/sandbox"
)

// state is a fake of all sources.
type state struct {
	pods       []*sandbox.Pod
	containers []*container.Snapshot
	totals     image.Totals
	reason     string
	runtime    error
}

type podState struct{ s *state }

func (p podState) List() []*sandbox.Pod  { return p.s.pods }
func (p podState) NetworkReason() string { return p.s.reason }

type containerState struct{ s *state }

func (c containerState) List() []*container.Snapshot { return c.s.containers }

type imageState struct{ s *state }

func (i imageState) Totals() image.Totals { return i.s.totals }

// newTestMetrics returns metrics with fake sources.
func newTestMetrics(t *testing.T) (*Metrics, *state) {
	t.Helper()
	m, s := New("1.2.3"), &state{}
	m.Watch(Sources{
		Pods: podState{s}, Containers: containerState{s}, Images: imageState{s}, RuntimeStatus: func() error { return s.runtime },
		Root: t.TempDir(), RunDir: t.TempDir(),
	})
	return m, s
}

// values returns the lines of a scrape, except comments.
func values(t *testing.T, m *Metrics) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for line := range strings.Lines(scrape(t, m)) {
		if series, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && !strings.HasPrefix(line, "#") {
			// Label values can contain spaces.
			if i := strings.LastIndex(line, " "); strings.Contains(line, "{") {
				series, value = line[:i], strings.TrimSpace(line[i:])
			}
			all[strings.TrimPrefix(series, "criserver_")] = value
		}
	}
	return all
}

// want checks some values.
func want(t *testing.T, m *Metrics, expected map[string]string) {
	t.Helper()
	got := values(t, m)
	for series, v := range expected {
		if got[series] != v {
			t.Errorf("%s: got %q, want %s", series, got[series], v)
		}
	}
}

// run records a step that ends with err.
func run(m *Metrics, name steps.Name, err error, attrs ...steps.Attr) {
	_, step := steps.NewRecorder(nil, m).Start(context.Background(), name, attrs...)
	step.End(err)
}

// exercise makes every metric have a value.
func exercise(m *Metrics, s *state) {
	m.CallStarted("Version")
	m.CallEnded("Version", codes.OK, time.Millisecond)
	run(m, steps.CNIPlugin, errors.New("no address"), steps.Plugin("bridge"), steps.Command("ADD"), steps.BuiltIn())
	run(m, steps.RuntimeCall, errors.New("failed"), steps.Command("start"))
	m.PluginAnswered("10-a", "CreateContainer", time.Second)
	m.PluginFailed("10-a", "CreateContainer", context.DeadlineExceeded)
	s.pods = []*sandbox.Pod{{Ready: true}, {}}
}

// TestLint runs the linter of the Prometheus library.
func TestLint(t *testing.T) {
	m, s := newTestMetrics(t)
	exercise(m, s)
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, namespace) {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// TestDocumented compares the names and labels of the metrics with docs/metrics.md.
func TestDocumented(t *testing.T) {
	m, s := newTestMetrics(t)
	exercise(m, s)
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([a-z_`, ]*)\\| (counter|gauge|histogram) \\|")
	documented := make(map[string]string)
	for _, r := range row.FindAllStringSubmatch(string(b), -1) {
		labels := strings.FieldsFunc(r[2], func(c rune) bool { return strings.ContainsRune("`, ", c) })
		slices.Sort(labels)
		documented[r[1]] = fmt.Sprint(labels, " ", r[3])
	}
	for _, f := range families {
		labels := []string{}
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		got := fmt.Sprint(labels, " ", strings.ToLower(f.GetType().String()))
		if d, ok := documented[f.GetName()]; (ok || strings.HasPrefix(f.GetName(), namespace)) && d != got {
			t.Errorf("%s: docs/metrics.md has %q, want %q", f.GetName(), d, got)
		}
		delete(documented, f.GetName())
	}
	for name := range documented {
		t.Errorf("docs/metrics.md has %s, which does not exist", name)
	}
}

func TestCalls(t *testing.T) {
	m, _ := newTestMetrics(t)
	m.CallStarted("RunPodSandbox")
	m.CallStarted("RunPodSandbox")
	m.CallEnded("RunPodSandbox", codes.Unavailable, 3*time.Second)
	m.CallStarted(eventStream)
	m.CallEnded(eventStream, codes.Canceled, time.Hour)
	m.CallStarted("NoSuchCall")
	m.CallEnded("NoSuchCall", codes.OK, time.Hour)
	want(t, m, map[string]string{
		`rpc_in_flight{rpc="RunPodSandbox"}`: "1", `rpc_requests_total{code="Unavailable",rpc="RunPodSandbox"}`: "1", `rpc_requests_total{code="OK",rpc="RunPodSandbox"}`: "0",
		`rpc_duration_seconds_bucket{rpc="RunPodSandbox",le="2.5"}`: "0", `rpc_duration_seconds_bucket{rpc="RunPodSandbox",le="5"}`: "1",
		`rpc_requests_total{code="Canceled",rpc="GetContainerEvents"}`: "1", `rpc_duration_seconds_count{rpc="GetContainerEvents"}`: "",
		`rpc_requests_total{code="OK",rpc="NoSuchCall"}`: "", `rpc_requests_total{code="OK",rpc="PullImage"}`: "0",
	})
}

func TestSteps(t *testing.T) {
	m, _ := newTestMetrics(t)
	run(m, steps.RootFSMount, nil)
	run(m, steps.CNIPlugin, fmt.Errorf("add: %w", errdefs.ErrUnavailable), steps.Plugin("bridge"), steps.Command("ADD"), steps.BuiltIn())
	run(m, steps.CNIPlugin, nil, steps.Plugin("tuning"), steps.Command("NEW"))
	run(m, steps.RuntimeCall, nil, steps.Command("--version"))
	run(m, steps.RuntimeCreate, errors.New("exec format error"))
	run(m, steps.RPC, nil)
	want(t, m, map[string]string{
		`step_duration_seconds_count{step="rootfs.mount"}`: "1", `step_errors_total{class="unavailable",step="cni.plugin"}`: "1", `step_duration_seconds_count{step="rpc"}`: "",
		`cni_plugin_duration_seconds_count{builtin="true",command="ADD",plugin="bridge"}`: "1", `cni_plugin_errors_total{class="unavailable",command="ADD",plugin="bridge"}`: "1",
		`cni_plugin_duration_seconds_count{builtin="false",command="other",plugin="tuning"}`: "1",
		`runtime_call_duration_seconds_count{operation="version"}`:                           "1", `runtime_call_errors_total{class="other",operation="create"}`: "1",
	})
}

func TestRunningSteps(t *testing.T) {
	m, _ := newTestMetrics(t)
	r := steps.NewRecorder(nil, m)
	_, first := r.Start(t.Context(), steps.CNIAdd)
	_, second := r.Start(t.Context(), steps.CNIAdd)
	_, wait := r.Start(t.Context(), steps.RuntimeCall, steps.Command("wait"))
	if got := m.steps.running.ages(time.Now().Add(2 * stuckAfter))[steps.CNIAdd]; got.running != 2 || got.stuck != 2 || got.oldest < 2*stuckAfter {
		t.Errorf("after two minutes: got %+v, want two stuck steps", got)
	}
	want(t, m, map[string]string{`steps_running{step="cni.add"}`: "2", `steps_stuck{step="cni.add"}`: "0", `steps_running{step="runtime.call"}`: "0"})
	first.End(nil)
	second.End(errors.New("failed"))
	wait.End(nil)
	want(t, m, map[string]string{`steps_running{step="cni.add"}`: "0", `step_oldest_seconds{step="cni.add"}`: "0"})
	if n := len(m.steps.running.all); n != 0 {
		t.Errorf("%d steps are left in the set, want none", n)
	}
}

func TestPulls(t *testing.T) {
	m, s := newTestMetrics(t)
	for _, err := range []error{nil, fmt.Errorf("write: %w", unix.ENOSPC), fmt.Errorf("pull: %w", errdefs.ErrUnauthenticated), context.Canceled, errors.New("strange")} {
		run(m, steps.ImagePull, err)
	}
	s.totals.Received, s.totals.Fetched, s.totals.Reused, s.totals.Layers = 10, 2, 3, 4
	want(t, m, map[string]string{
		`image_pulls_total{result="success"}`: "1", `image_pulls_total{result="disk_full"}`: "1", `image_pulls_total{result="auth"}`: "1",
		`image_pulls_total{result="cancelled"}`: "1", `image_pulls_total{result="other"}`: "1", `image_pulls_total{result="digest"}`: "0",
		`image_pull_duration_seconds_count{result="failure"}`: "4", "image_pull_received_bytes_total": "10", "image_layers": "4",
		`image_pull_layers_total{source="registry"}`: "2", `image_pull_layers_total{source="store"}`: "3",
	})
}

func TestState(t *testing.T) {
	m, s := newTestMetrics(t)
	s.pods = []*sandbox.Pod{{Ready: true}, {}, {Ready: true}}
	s.containers = []*container.Snapshot{{State: container.Running}, {State: container.Running, MonitorLost: true}, {State: container.Exited}, {State: container.Unknown}}
	s.reason = "plugin_missing"
	m.ContainerExited(container.ExitFacts{Reason: container.ReasonOOMKilled, OOMKilled: true, LogLost: 7})
	m.ContainerExited(container.ExitFacts{Reason: "new reason", LogLost: -1})
	m.MonitorCrashed()
	m.WatchdogProbed(errors.New("timeout"))
	m.PluginsConnected(2)
	m.PluginFailed("10-a", "CreateContainer", fmt.Errorf("call: %w", context.DeadlineExceeded))
	want(t, m, map[string]string{
		`pods{state="ready"}`: "2", `pods{state="not_ready"}`: "1", `containers{state="running"}`: "2", `containers{state="created"}`: "0", "monitors": "2",
		`ready{condition="runtime"}`: "1", `ready{condition="network"}`: "0", `not_ready{condition="network",reason="plugin_missing"}`: "1", `not_ready{condition="network",reason="checking"}`: "0",
		`container_exits_total{reason="OOMKilled"}`: "1", `container_exits_total{reason="other"}`: "1", "container_oom_kills_total": "1", "container_log_lost_bytes_total": "7",
		"monitor_crashes_total": "1", `watchdog_probes_total{result="failure"}`: "1", "nri_plugins": "2",
		`nri_call_errors_total{event="CreateContainer",kind="timeout",plugin="10-a"}`: "1",
	})
	s.reason, s.runtime = "", errdefs.ErrUnavailable
	want(t, m, map[string]string{`ready{condition="runtime"}`: "0", `not_ready{condition="runtime",reason="probing"}`: "1", `ready{condition="network"}`: "1"})
	if got := values(t, m); got[`filesystem_size_bytes{directory="root"}`] == "" || got[`filesystem_available_bytes{directory="run_dir"}`] == "" {
		t.Error("the sizes of the file systems are missing")
	}
}

// TestNamesAreBounded checks that names of plugins cannot make any number of series.
func TestNamesAreBounded(t *testing.T) {
	m, _ := newTestMetrics(t)
	for i := range 3 * maxNames {
		m.PluginAnswered(fmt.Sprint("plugin-", i), "CreateContainer", time.Second)
	}
	m.PluginAnswered("plugin-1", "CreateContainer", time.Second)
	want(t, m, map[string]string{
		`nri_call_duration_seconds_count{event="CreateContainer",plugin="other"}`:    fmt.Sprint(2 * maxNames),
		`nri_call_duration_seconds_count{event="CreateContainer",plugin="plugin-1"}`: "2",
	})
}

// TestCheckpoints checks the metrics of checkpoints that succeeded and failed.
func TestCheckpoints(t *testing.T) {
	m, _ := newTestMetrics(t)
	m.Checkpointed(checkpoint.Result{Kind: checkpoint.KindPod, Bytes: 3 << 20, Duration: time.Second, Frozen: time.Millisecond})
	m.Checkpointed(checkpoint.Result{Kind: checkpoint.KindPod, Bytes: 1 << 40, Err: errors.New("failed")})
	want(t, m, map[string]string{
		`checkpoints_total{kind="pod",result="success"}`:                 "1",
		`checkpoints_total{kind="pod",result="failure"}`:                 "1",
		`checkpoint_bytes_total{kind="pod"}`:                             "3.145728e+06",
		`checkpoint_size_bytes_bucket{kind="pod",le="1.048576e+06"}`:     "0",
		`checkpoint_size_bytes_bucket{kind="pod",le="4.194304e+06"}`:     "1",
		`checkpoint_size_bytes_bucket{kind="pod",le="6.8719476736e+10"}`: "1",
		`checkpoint_size_bytes_sum{kind="pod"}`:                          "3.145728e+06",
		`checkpoint_size_bytes_count{kind="container"}`:                  "0",
		`checkpoint_duration_seconds_sum{kind="pod"}`:                    "1",
	})
}

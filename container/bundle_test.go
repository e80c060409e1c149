package container

import (
	"encoding/json"
	"errors"
	"maps"
	"os/exec"
	"strings"
	"testing"

	"github.com/criserver/criserver/container/containerspec"
	"github.com/criserver/criserver/container/record"
	"github.com/criserver/criserver/internal/oomscore"
	"github.com/criserver/criserver/oci/runtime"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestScopePropertiesReachTheConfig checks that the daemon sets the properties of a scope,
// and that annotations of the request set none, even if the operator allows all annotations.
func TestScopePropertiesReachTheConfig(t *testing.T) {
	b := newTestBed(t)
	b.pods.change(func(p *Pod) { p.PauseUnit = "criserver-pause-1.scope" })
	seen := &readingMonitors{}
	m, _ := b.manager(func(c *Config) {
		c.Monitors, c.DaemonUnit = seen, "criserver.service"
		for _, r := range c.Settings.Runtimes {
			r.ScopeProperties, r.AllowedAnnotations = true, []string{"*"}
		}
	})
	c := shell("c", "true")
	c.Annotations = map[string]string{containerspec.GracePeriodKey: "5", "org.systemd.property.ExecStopPost": "'/bin/false'"}
	if _, err := m.Create(t.Context(), "pod", c, nil); !errors.Is(err, errNoContainer) {
		t.Fatal(err)
	}
	var config struct{ Annotations map[string]string }
	if err := json.Unmarshal([]byte(seen.config), &config); err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(config.Annotations, func(k, _ string) bool { return !strings.HasPrefix(k, "org.systemd.") })
	want := map[string]string{
		"org.systemd.property.CollectMode":     "'inactive-or-failed'",
		"org.systemd.property.Conflicts":       "['shutdown.target']",
		"org.systemd.property.Before":          "['shutdown.target']",
		"org.systemd.property.After":           "['criserver.service', 'criserver-pause-1.scope']",
		"org.systemd.property.TasksMax":        "uint64 18446744073709551615",
		"org.systemd.property.TimeoutStopUSec": "uint64 5000000",
	}
	if !maps.Equal(config.Annotations, want) {
		t.Errorf("got %v", config.Annotations)
	}
}

func TestOOMScoreAdjIsReset(t *testing.T) {
	adj := func(v int) *specs.Process { return &specs.Process{OOMScoreAdj: &v} }
	for name, tc := range map[string]struct {
		process *specs.Process
		want    int
	}{
		"0":               {adj(0), 0},
		"another":         {adj(500), 300}, // the runtime has set it
		"unknown":         {nil, 300},
		"not in a config": {&specs.Process{}, 300},
	} {
		cmd := exec.Command("sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := oomscore.Set(cmd.Process.Pid, 300); err != nil {
			t.Fatal(err)
		}
		c := &container{id: "c", rec: &record.Record{}, process: tc.process}
		c.resetOOMScoreAdj(cmd.Process.Pid)
		if got, err := oomscore.Get(cmd.Process.Pid); err != nil || got != tc.want {
			t.Errorf("%s: oom_score_adj %d, %v; want %d", name, got, err, tc.want)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// innerCgroups puts every process into a cgroup below the cgroup of the container.
type innerCgroups struct{ Cgroups }

func (innerCgroups) ProcessCgroup(int) (string, error) {
	return "/pod/criserver-1.scope/container", nil
}

func TestProcessCgroup(t *testing.T) {
	m := &Manager{cfg: Config{Cgroups: innerCgroups{}}}
	for name, tc := range map[string]struct {
		runtime runtime.Runtime
		path    string
		want    string
	}{
		"below the scope":  {runtime.Runtime{SystemdCgroup: true}, "/pod/criserver-1.scope", "/pod/criserver-1.scope/container"},
		"another scope":    {runtime.Runtime{SystemdCgroup: true}, "/pod/criserver-1", ""},
		"the scope itself": {runtime.Runtime{SystemdCgroup: true}, "/pod/criserver-1.scope/container", ""},
		"cgroupfs":         {runtime.Runtime{}, "/pod/criserver-1.scope", ""},
		"in a guest":       {runtime.Runtime{SystemdCgroup: true, Guest: true}, "/pod/criserver-1.scope", ""},
	} {
		c := &container{rec: &record.Record{CgroupPath: tc.path}, runtime: &tc.runtime}
		if got := m.processCgroup(c, 1); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
		c.status.ProcessCgroup = tc.want
		if got := c.snapshot().ProcessCgroup; tc.want != "" && got != tc.want || tc.want == "" && got != tc.path {
			t.Errorf("%s: the Snapshot has %q", name, got)
		}
	}
}

package container

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/container/bundle"
	"github.com/criserver/criserver/container/containerspec"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/oci/basespec"
	"github.com/criserver/criserver/oci/hooks"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// writeHookFile writes a hook file, whose program appends the name of the stage and the state
// that it reads to the file notes.
func writeHookFile(t *testing.T, path, notes, when string, stages ...string) {
	t.Helper()
	script := fmt.Sprintf("s=$(cat); echo \"$1 $s\" >>%s", notes)
	var hook struct {
		Version string          `json:"version"`
		Hook    specs.Hook      `json:"hook"`
		When    json.RawMessage `json:"when"`
		Stages  []string        `json:"stages"`
	}
	hook.Version, hook.When, hook.Stages = "1.0.0", json.RawMessage(when), stages
	hook.Hook = specs.Hook{Path: "/bin/busybox", Args: []string{"sh", "-c", script, "sh", stages[0]}}
	b, err := json.Marshal(hook)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestHooksRun checks that the runtime runs the hooks of the operator in their stages, with the
// annotations that identify the container, and that conditions can refer to annotations that are
// not passed to the runtime.
func TestHooksRun(t *testing.T) {
	b := newTestBed(t)
	dir, notes := filepath.Join(b.dir, "hooks.d"), filepath.Join(b.dir, "notes")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	writeHookFile(t, filepath.Join(dir, "1.json"), notes, `{"annotations": {"^hook$": "yes"}}`, "prestart")
	writeHookFile(t, filepath.Join(dir, "2.json"), notes, `{"annotations": {"^hook$": "yes"}}`, "poststop")
	writeHookFile(t, filepath.Join(dir, "3.json"), notes, `{"hasBindMounts": true}`, "createRuntime")
	m, _ := b.manager(func(c *Config) { c.Settings.Hooks = hooks.New([]string{dir}) })
	config := shell("with", "true")
	config.Annotations = map[string]string{"hook": "yes"}
	id := b.run(m, config)
	b.waitExit(m, id)
	if err := m.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	without := b.run(m, shell("without", "true"))
	b.waitExit(m, without)
	got, err := os.ReadFile(notes)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(got)), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "prestart ") || !strings.HasPrefix(lines[1], "poststop ") {
		t.Fatalf("hooks: got %q, want one in the stage prestart and one in the stage poststop", lines)
	}
	var state specs.State
	if err := json.Unmarshal([]byte(strings.TrimPrefix(lines[0], "prestart ")), &state); err != nil {
		t.Fatal(err)
	}
	a := state.Annotations
	if state.ID != id || a["io.kubernetes.cri.sandbox-id"] != "pod" || a["io.kubernetes.cri.container-name"] != "with" || a["io.kubernetes.cri.image-name"] != "busybox" || a["hook"] != "" {
		t.Errorf("state of the hook: got %+v, want the annotations that identify the container", state)
	}
	// A file that cannot be read may concern each container.
	if err := os.WriteFile(filepath.Join(dir, "bad.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Create(t.Context(), "pod", shell("refused", "true"), nil); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "bad.json") {
		t.Errorf("with a file that cannot be read: got %v, want an error that names the file", err)
	}
}

// TestOperatorDefaultsInContainers checks in a container the variables, devices and mounts that
// the operator and the base spec of the handler give to all containers.
func TestOperatorDefaultsInContainers(t *testing.T) {
	b := newTestBed(t)
	base, err := basespec.Parse([]byte(`{"ociVersion": "1.0.2",
		"process": {"env": ["HANDLER=base", "BOTH=base"], "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]},
		"mounts": [{"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	m, _ := b.manager(func(c *Config) {
		c.Settings.Handlers = map[string]bundle.Handler{"runc": {Base: base}}
		c.Settings.DefaultEnv = []string{"OPERATOR=1", "BOTH=operator", "REQUEST=operator"}
		c.Settings.AdditionalDevices = []containerspec.Device{{HostPath: "/dev/null", ContainerPath: "/dev/nothing"}}
	})
	config := shell("c", `echo "$OPERATOR $BOTH $HANDLER $REQUEST $(ulimit -c) $(grep -c ' /scratch tmpfs' /proc/mounts)"; echo x >/dev/nothing && echo written`)
	config.Envs = []*cri.KeyValue{{Key: "REQUEST", Value: []byte("request")}}
	b.waitExit(m, b.run(m, config))
	b.log("c", "1 base base request 0 1\n")
	b.log("c", "written\n")
}

func TestRequiredHostPaths(t *testing.T) {
	b := newTestBed(t)
	required, other := filepath.Join(b.dir, "required"), filepath.Join(b.dir, "other")
	m, _ := b.manager(func(c *Config) { c.Settings.RequiredHostPaths = []string{required} })
	config := shell("c", "true")
	config.Mounts = []*cri.Mount{{HostPath: required + "/", ContainerPath: "/a"}}
	if _, err := m.Create(t.Context(), "pod", config, nil); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), required) {
		t.Errorf("required path: got %v, want not found", err)
	}
	config.Mounts[0].HostPath = other
	b.create(m, config)
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
}

// TestPrivilegedWithoutHostDevices checks in a container which devices a privileged container has
// and may use.
func TestPrivilegedWithoutHostDevices(t *testing.T) {
	for name, tc := range map[string]struct {
		without, allowed bool
		nodes, use       string
	}{
		"default":             {false, false, "node", "usable"},
		"no devices":          {true, false, "none", "refused"},
		"all devices allowed": {true, true, "none", "usable"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newTestBed(t)
			m, _ := b.manager(func(c *Config) {
				c.Settings.Handlers = map[string]bundle.Handler{"runc": {PrivilegedWithoutHostDevices: tc.without, AllDevicesAllowed: tc.allowed}}
			})
			// 10:229 is /dev/fuse, which other containers may not use.
			config := shell("c", `test -e /dev/fuse && echo node || echo none; mknod /dev/x c 10 229 && (exec 3</dev/x) && echo usable || echo refused`)
			config.Linux.SecurityContext.Privileged = true
			b.waitExit(m, b.run(m, config))
			b.log("c", " "+tc.nodes+"\n")
			b.log("c", " "+tc.use+"\n")
		})
	}
}

// TestLogSizeMax checks that the limit of the configuration reaches the monitor.
func TestLogSizeMax(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager(func(c *Config) { c.Settings.LogSizeMax = 1 << 20 })
	s := b.waitExit(m, b.run(m, shell("c", "yes 'a line of some length' | head -n 60000")))
	for _, path := range []string{s.LogPath, s.LogPath + ".1"} {
		if st, err := os.Stat(path); err != nil || st.Size() > 1<<20 {
			t.Errorf("%s: got %v (error %v), want at most a megabyte", path, st, err)
		}
	}
	if !strings.Contains(s.Message, "bytes of the log are lost") {
		t.Errorf("message: got %q, want the number of lost bytes", s.Message)
	}
}

// specMonitors record the last Spec.
type specMonitors struct {
	Monitors
	spec conmon.Spec
}

func (s *specMonitors) Create(ctx context.Context, spec conmon.Spec) (conmon.Started, proc.Ref, error) {
	s.spec = spec
	return s.Monitors.Create(ctx, spec)
}

// TestNoPivot checks that the option of the handler reaches the runtime and that containers run
// with it.
func TestNoPivot(t *testing.T) {
	b := newTestBed(t)
	b.runtime.NoPivot = true
	seen := &specMonitors{}
	m, _ := b.manager(func(c *Config) { seen.Monitors, c.Monitors = c.Monitors, seen })
	b.waitExit(m, b.run(m, shell("c", "echo running")))
	b.log("c", "running\n")
	if !slices.Equal(seen.spec.CreateArgs, []string{"--no-pivot"}) {
		t.Errorf("options of create: got %q, want --no-pivot", seen.spec.CreateArgs)
	}
}

// TestIgnoreImageVolumes checks that a volume of the image does not become a directory, and is not
// writable in a read-only root file system.
func TestIgnoreImageVolumes(t *testing.T) {
	for ignored, want := range map[bool]string{false: "writable", true: "none"} {
		t.Run(want, func(t *testing.T) {
			b := newTestBed(t)
			b.images.config.Volumes = map[string]struct{}{"/volume": {}}
			m, _ := b.manager(func(c *Config) { c.Settings.IgnoreImageVolumes = ignored })
			config := shell("c", "test -d /volume || echo none; touch /volume/x 2>/dev/null && echo writable")
			config.Linux.SecurityContext.ReadonlyRootfs = true
			b.waitExit(m, b.run(m, config))
			b.log("c", " "+want+"\n")
		})
	}
}

// TestLocaltime checks that containers have the file of the time zone at /etc/localtime and cannot
// change the file, also if the image has a link there.
func TestLocaltime(t *testing.T) {
	zone := filepath.Join(t.TempDir(), "zone")
	if err := os.WriteFile(zone, []byte("TZif of the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{"", "/usr/share/zoneinfo/UTC"} {
		b := newTestBed(t)
		b.images.localtime = link
		m, _ := b.manager(func(c *Config) { c.Settings.Localtime = zone })
		b.waitExit(m, b.run(m, shell("c", "cat /etc/localtime; echo x >/etc/localtime || echo read-only")))
		b.log("c", "TZif of the host\n")
		b.log("c", "read-only\n")
	}
}

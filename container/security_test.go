package container

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/container/containerspec"
	"github.com/criserver/criserver/container/record"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/host"
	"github.com/criserver/criserver/oci/selinux"
)

// fakeLabels changes no labels of files, because the machine may have no SELinux.
type fakeLabels struct {
	relabelled []string
	fail       error
}

func (f *fakeLabels) Container(r selinux.Request) (process, mount string, err error) {
	if r.Unconfined {
		return "unconfined", "unconfined-mount", f.fail
	}
	return r.PodProcess + r.Options.GetType(), r.PodMount, f.fail
}

func (f *fakeLabels) Relabel(path, label string) error {
	f.relabelled = append(f.relabelled, path+" "+label)
	return f.fail
}

func TestLabelsFor(t *testing.T) {
	pod := Pod{ProcessLabel: "p", MountLabel: "m", IPCNS: "/ns/ipc"}
	hostIPC := Pod{ProcessLabel: "p", MountLabel: "m"}
	asked := &cri.SELinuxOption{Type: "+t"}
	hostPID := &cri.NamespaceOption{Pid: cri.NamespaceMode_NODE}
	for name, tc := range map[string]struct {
		pod  Pod
		sc   *cri.LinuxContainerSecurityContext
		want labels
	}{
		"labels of the pod":     {pod, nil, labels{"p", "m", true}},
		"options":               {pod, &cri.LinuxContainerSecurityContext{SelinuxOptions: asked}, labels{"p+t", "m", true}},
		"privileged":            {pod, &cri.LinuxContainerSecurityContext{Privileged: true, SelinuxOptions: asked}, labels{"unconfined", "unconfined-mount", false}},
		"host PID":              {pod, &cri.LinuxContainerSecurityContext{NamespaceOptions: hostPID}, labels{"unconfined", "unconfined-mount", false}},
		"host PID with options": {pod, &cri.LinuxContainerSecurityContext{NamespaceOptions: hostPID, SelinuxOptions: asked}, labels{"p+t", "m", true}},
		"host IPC":              {hostIPC, nil, labels{"unconfined", "unconfined-mount", false}},
	} {
		m := &Manager{cfg: Config{Labels: &fakeLabels{}}}
		spec := &containerspec.Spec{
			Security: containerspec.Security{Privileged: tc.sc.GetPrivileged(), SELinux: tc.sc.GetSelinuxOptions()},
			PID:      containerspec.PIDNamespace{Mode: tc.sc.GetNamespaceOptions().GetPid()},
		}
		if got, err := m.labelsFor(spec, tc.pod); err != nil || got != tc.want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		m.cfg.Labels = nil
		if got, err := m.labelsFor(spec, tc.pod); err != nil || got != (labels{}) {
			t.Errorf("%s, without SELinux: %+v, %v", name, got, err)
		}
	}
}

func TestRelabel(t *testing.T) {
	f := &fakeLabels{}
	m := &Manager{cfg: Config{Labels: f}}
	c := &container{}
	p := func(l labels) *plan {
		return &plan{labels: l, spec: &containerspec.Spec{Mounts: []containerspec.Mount{{}, {Relabel: true}, {}}}}
	}
	mounts := []oci.Mount{{Source: "/h/a"}, {Source: "/h/b"}, {Source: "/v/c"}}
	if err := m.relabel(c, p(labels{"p", "m", true}), mounts); err != nil || !slices.Equal(f.relabelled, []string{"/h/b m"}) {
		t.Errorf("relabelled %q, %v", f.relabelled, err)
	}
	if err := m.relabel(c, p(labels{"u", "m", false}), mounts); err != nil || len(f.relabelled) != 1 {
		t.Errorf("relabelled for an unconfined container: %q, %v", f.relabelled, err)
	}
	f.fail = errors.New("denied")
	if err := m.relabel(c, p(labels{"p", "m", true}), mounts); !errors.Is(err, f.fail) || !strings.Contains(err.Error(), "config.mounts[1].selinux_relabel") {
		t.Errorf("got %v", err)
	}
}

// readingMonitors read the OCI config and create no container, because a kernel without
// SELinux refuses labels.
type readingMonitors struct{ config string }

var errNoContainer = errors.New("the test creates no container")

func (r *readingMonitors) Create(_ context.Context, spec conmon.Spec) (conmon.Started, proc.Ref, error) {
	b, err := os.ReadFile(filepath.Join(spec.Bundle, record.ConfigFile))
	r.config = string(b)
	return conmon.Started{}, proc.Ref{}, errors.Join(err, errNoContainer)
}

func TestLabelsReachTheConfig(t *testing.T) {
	b := newTestBed(t)
	b.pods.change(func(p *Pod) { p.ProcessLabel, p.MountLabel = "process", "mount" })
	f, seen := &fakeLabels{}, &readingMonitors{}
	facts, err := host.Detect(b.tree)
	if err != nil {
		t.Fatal(err)
	}
	facts.SELinux = true
	m, _ := b.manager(func(c *Config) {
		c.Labels, c.Monitors, c.Settings.Builder = f, seen, oci.NewBuilder(facts, oci.Defaults{})
	})
	volume := t.TempDir()
	for name, tc := range map[string]struct {
		options        *cri.SELinuxOption
		process, mount string
		relabelled     int
	}{
		// The pod of the test shares the IPC namespace of the host.
		"unconfined": {nil, "unconfined", "unconfined-mount", 0},
		"asked":      {&cri.SELinuxOption{Type: "-type"}, "process-type", "mount", 1},
	} {
		f.relabelled = nil
		clear(b.images.labels)
		c := shell(name, "true")
		c.Linux.SecurityContext.SelinuxOptions = tc.options
		c.Mounts = []*cri.Mount{{HostPath: volume, ContainerPath: "/v", SelinuxRelabel: true}}
		if _, err := m.Create(t.Context(), "pod", c, nil); !errors.Is(err, errNoContainer) {
			t.Fatal(err)
		}
		if got := slices.Collect(maps.Values(b.images.labels)); !slices.Equal(got, []string{tc.mount}) {
			t.Errorf("%s: the labels of mounted root file systems are %q", name, got)
		}
		var config struct {
			Process struct{ SelinuxLabel string }
			Linux   struct{ MountLabel string }
		}
		if err := json.Unmarshal([]byte(seen.config), &config); err != nil || config.Process.SelinuxLabel != tc.process || config.Linux.MountLabel != tc.mount {
			t.Errorf("%s: %+v, %v", name, config, err)
		}
		if len(f.relabelled) != tc.relabelled {
			t.Errorf("%s: relabelled %q", name, f.relabelled)
		}
	}
	f.fail = errdefs.ErrInvalidArgument
	if _, err := m.Create(t.Context(), "pod", shell("refused", "true"), nil); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
}

type fakeAppArmor struct{ asked []string }

func (f *fakeAppArmor) Ensure(_ context.Context, profile string) error {
	f.asked = append(f.asked, profile)
	if profile == "missing" {
		return errdefs.ErrFailedPrecondition
	}
	return nil
}

func TestEnsureAppArmor(t *testing.T) {
	f := &fakeAppArmor{}
	m := &Manager{cfg: Config{AppArmor: f}}
	for _, profile := range []string{"", "p"} {
		if err := m.ensureAppArmor(t.Context(), profile); err != nil {
			t.Errorf("%q: %v", profile, err)
		}
	}
	if !slices.Equal(f.asked, []string{"p"}) {
		t.Errorf("loaded profiles: %q", f.asked)
	}
	if err := m.ensureAppArmor(t.Context(), "missing"); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "config.linux.security_context.apparmor") {
		t.Errorf("a profile that is not loaded: %v", err)
	}
}

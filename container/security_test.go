package container

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/conmon"
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

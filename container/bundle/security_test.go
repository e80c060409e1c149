package bundle

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/container/containerspec"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/selinux"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
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
		want Labels
	}{
		"labels of the pod":     {pod, nil, Labels{"p", "m", true}},
		"options":               {pod, &cri.LinuxContainerSecurityContext{SelinuxOptions: asked}, Labels{"p+t", "m", true}},
		"privileged":            {pod, &cri.LinuxContainerSecurityContext{Privileged: true, SelinuxOptions: asked}, Labels{"unconfined", "unconfined-mount", false}},
		"host PID":              {pod, &cri.LinuxContainerSecurityContext{NamespaceOptions: hostPID}, Labels{"unconfined", "unconfined-mount", false}},
		"host PID with options": {pod, &cri.LinuxContainerSecurityContext{NamespaceOptions: hostPID, SelinuxOptions: asked}, Labels{"p+t", "m", true}},
		"host IPC":              {hostIPC, nil, Labels{"unconfined", "unconfined-mount", false}},
	} {
		h := Host{Labeler: &fakeLabels{}}
		spec := &containerspec.Spec{
			Security: containerspec.Security{Privileged: tc.sc.GetPrivileged(), SELinux: tc.sc.GetSelinuxOptions()},
			PID:      containerspec.PIDNamespace{Mode: tc.sc.GetNamespaceOptions().GetPid()},
		}
		if got, err := h.LabelsFor(spec, tc.pod); err != nil || got != tc.want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		h.Labeler = nil
		if got, err := h.LabelsFor(spec, tc.pod); err != nil || got != (Labels{}) {
			t.Errorf("%s, without SELinux: %+v, %v", name, got, err)
		}
	}
}

func TestRelabel(t *testing.T) {
	f := &fakeLabels{}
	request := func(l Labels) *Request {
		return &Request{
			Host: Host{Labeler: f}, Labels: l, Spec: &containerspec.Spec{Mounts: []containerspec.Mount{{}, {Relabel: true}, {}}}, Enter: func(string) {},
		}
	}
	mounts := []oci.Mount{{Source: "/h/a"}, {Source: "/h/b"}, {Source: "/v/c"}}
	if err := request(Labels{"p", "m", true}).relabel(mounts); err != nil || !slices.Equal(f.relabelled, []string{"/h/b m"}) {
		t.Errorf("relabelled %q, %v", f.relabelled, err)
	}
	if err := request(Labels{"u", "m", false}).relabel(mounts); err != nil || len(f.relabelled) != 1 {
		t.Errorf("relabelled for an unconfined container: %q, %v", f.relabelled, err)
	}
	f.fail = errors.New("denied")
	if err := request(Labels{"p", "m", true}).relabel(mounts); !errors.Is(err, f.fail) || !strings.Contains(err.Error(), "config.mounts[1].selinux_relabel") {
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
	h := Host{AppArmor: f}
	for _, profile := range []string{"", "p"} {
		if err := h.ensureAppArmor(t.Context(), profile); err != nil {
			t.Errorf("%q: %v", profile, err)
		}
	}
	if !slices.Equal(f.asked, []string{"p"}) {
		t.Errorf("loaded profiles: %q", f.asked)
	}
	if err := h.ensureAppArmor(t.Context(), "missing"); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "config.linux.security_context.apparmor") {
		t.Errorf("a profile that is not loaded: %v", err)
	}
}

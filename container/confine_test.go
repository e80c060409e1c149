package container

import (
	"context"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/oci"
)

type fakeAppArmor struct{ asked []string }

func (f *fakeAppArmor) Ensure(_ context.Context, profile string) error {
	f.asked = append(f.asked, profile)
	if profile == "missing" {
		return errdefs.ErrFailedPrecondition
	}
	return nil
}

func TestCheckAppArmor(t *testing.T) {
	f := &fakeAppArmor{}
	m := &Manager{cfg: Config{AppArmor: f, Builder: oci.NewBuilder(oci.Host{AppArmor: true}, oci.Defaults{AppArmorProfile: "default"})}}
	local := func(name string) *cri.LinuxContainerSecurityContext {
		return &cri.LinuxContainerSecurityContext{Apparmor: &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: name}}
	}
	for _, sc := range []*cri.LinuxContainerSecurityContext{
		nil, local("p"), {ApparmorProfile: "unconfined"}, {Privileged: true, ApparmorProfile: "localhost/p"}, {Privileged: true},
	} {
		if err := m.checkAppArmor(t.Context(), sc); err != nil {
			t.Errorf("%v: %v", sc, err)
		}
	}
	if got := strings.Join(f.asked, " "); got != "default p p" {
		t.Errorf("looked for %q", got)
	}
	if err := m.checkAppArmor(t.Context(), local("missing")); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "config.linux.security_context.apparmor") {
		t.Errorf("a profile that is not loaded: %v", err)
	}
}

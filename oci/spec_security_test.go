package oci

import (
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func localSeccomp(path string) *cri.SecurityProfile {
	return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: path}
}

func TestSeccomp(t *testing.T) {
	for name, tc := range map[string]struct {
		sc   *cri.LinuxContainerSecurityContext
		want bool
	}{
		"absent":              {&cri.LinuxContainerSecurityContext{}, false},
		"runtime default":     {&cri.LinuxContainerSecurityContext{Seccomp: &cri.SecurityProfile{}}, true},
		"legacy default":      {&cri.LinuxContainerSecurityContext{SeccompProfilePath: "runtime/default"}, true},
		"new field wins":      {&cri.LinuxContainerSecurityContext{Seccomp: &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}, SeccompProfilePath: "runtime/default"}, false},
		"privileged":          {&cri.LinuxContainerSecurityContext{Seccomp: &cri.SecurityProfile{}, Privileged: true}, false},
		"localhost, prefixed": {&cri.LinuxContainerSecurityContext{Seccomp: localSeccomp("localhost//p.json")}, true},
		"legacy localhost":    {&cri.LinuxContainerSecurityContext{SeccompProfilePath: "localhost//p.json"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			in := testInput()
			in.Security = tc.sc
			in.SeccompProfile = []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chmod"],"action":"SCMP_ACT_ERRNO"}]}`)
			s := mustBuild(t, testHost(), in).Spec.Linux.Seccomp
			if (s != nil) != tc.want {
				t.Errorf("seccomp filter: got %v, want a filter: %t", s, tc.want)
			}
		})
	}
}

// TestSeccompByCapabilities checks that the cache keeps one profile per set of capabilities,
// because the profile allows more system calls to containers with more capabilities.
func TestSeccompByCapabilities(t *testing.T) {
	b := NewBuilder(testHost(), Defaults{})
	allows := func(add []string, call string) bool {
		in := testInput()
		in.Security = caps(add, nil, nil)
		in.Security.Seccomp = &cri.SecurityProfile{}
		r, err := b.Build(in)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(r.Spec.Linux.Seccomp.Syscalls, func(s specs.LinuxSyscall) bool {
			return s.Action == specs.ActAllow && len(s.Args) == 0 && slices.Contains(s.Names, call)
		})
	}
	for range 2 {
		if without, with := allows(nil, "mount"), allows([]string{"SYS_ADMIN"}, "mount"); without || !with {
			t.Errorf("mount: allowed without SYS_ADMIN: %t, with it: %t, want only with it", without, with)
		}
	}
}

func TestDefaultProfileX32(t *testing.T) {
	for _, x32 := range []bool{false, true} {
		var p *specs.LinuxSeccomp
		c := seccompCache{x32: x32}
		for range 2 { // the second call returns the cached profile
			spec := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}, Linux: &specs.Linux{}}
			var err error
			if p, err = c.get(spec); err != nil {
				t.Fatal(err)
			}
		}
		if slices.Contains(p.Architectures, specs.ArchX86_64) && slices.Contains(p.Architectures, specs.ArchX32) != x32 {
			t.Errorf("architectures: got %v, want x32: %t", p.Architectures, x32)
		}
		if len(p.Syscalls) == 0 || p.DefaultAction != specs.ActErrno {
			t.Errorf("profile: got default action %v, %d entries, want an allow-list", p.DefaultAction, len(p.Syscalls))
		}
	}
}

// TestConfiguredSeccomp checks that profiles of the configuration replace the built-in ones.
func TestConfiguredSeccomp(t *testing.T) {
	errno := func(call string) []byte {
		return []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["` + call + `"],"action":"SCMP_ACT_ERRNO"}]}`)
	}
	d := Defaults{Seccomp: SeccompDefaults{Profile: errno("chmod"), Privileged: errno("reboot"), DefaultForAll: true}}
	for name, tc := range map[string]struct {
		sc   *cri.LinuxContainerSecurityContext
		want string // system call that the profile denies, "" for no filter
	}{
		"no context":         {nil, "chmod"},
		"no profile":         {&cri.LinuxContainerSecurityContext{}, "chmod"},
		"default":            {&cri.LinuxContainerSecurityContext{Seccomp: &cri.SecurityProfile{}}, "chmod"},
		"unconfined":         {&cri.LinuxContainerSecurityContext{Seccomp: &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}}, ""},
		"legacy unconfined":  {&cri.LinuxContainerSecurityContext{SeccompProfilePath: "unconfined"}, ""},
		"privileged":         {&cri.LinuxContainerSecurityContext{Privileged: true}, "reboot"},
		"privileged default": {&cri.LinuxContainerSecurityContext{Privileged: true, Seccomp: &cri.SecurityProfile{}}, "reboot"},
	} {
		in := testInput()
		in.Security = tc.sc
		r, err := NewBuilder(testHost(), d).Build(in)
		if err != nil {
			t.Errorf("%s: build: %v", name, err)
			continue
		}
		got := ""
		if s := r.Spec.Linux.Seccomp; s != nil {
			got = s.Syscalls[0].Names[0]
		}
		if got != tc.want {
			t.Errorf("%s: denied system call: got %q, want %q", name, got, tc.want)
		}
	}
	// The profile of the runtime handler replaces only the profile for RuntimeDefault.
	b := NewBuilder(testHost(), d)
	for name, want := range map[string]string{"default": "chown", "unconfined": "", "privileged": "reboot"} {
		in := testInput()
		in.DefaultSeccomp = b.NewDefaultSeccomp(errno("chown"))
		in.Security = map[string]*cri.LinuxContainerSecurityContext{
			"default":    {Seccomp: &cri.SecurityProfile{}},
			"unconfined": {Seccomp: &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}},
			"privileged": {Privileged: true},
		}[name]
		r, err := b.Build(in)
		if err != nil {
			t.Fatalf("%s with the profile of a handler: build: %v", name, err)
		}
		got := ""
		if s := r.Spec.Linux.Seccomp; s != nil {
			got = s.Syscalls[0].Names[0]
		}
		if got != want {
			t.Errorf("%s with the profile of a handler: denied system call: got %q, want %q", name, got, want)
		}
	}
	for _, bad := range []string{"", "{", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ERRNO"}]}`} {
		if CheckSeccomp([]byte(bad)) == nil {
			t.Errorf("CheckSeccomp of %q succeeded, want an error", bad)
		}
	}
}

func TestAppArmor(t *testing.T) {
	profile := func(kind cri.SecurityProfile_ProfileType, ref string) *cri.LinuxContainerSecurityContext {
		return &cri.LinuxContainerSecurityContext{Apparmor: &cri.SecurityProfile{ProfileType: kind, LocalhostRef: ref}}
	}
	legacy := func(ref string) *cri.LinuxContainerSecurityContext {
		return &cri.LinuxContainerSecurityContext{ApparmorProfile: ref}
	}
	const local = cri.SecurityProfile_Localhost
	for name, tc := range map[string]struct {
		sc      *cri.LinuxContainerSecurityContext
		want    string           // profile on a host with AppArmor
		fails   func(error) bool // class of the error on a host with AppArmor
		without func(error) bool // class of the error on a host without AppArmor
	}{
		"no context":          {sc: nil, want: "the-default"},
		"empty context":       {sc: &cri.LinuxContainerSecurityContext{}, want: "the-default"},
		"default":             {sc: profile(cri.SecurityProfile_RuntimeDefault, ""), want: "the-default"},
		"unconfined":          {sc: profile(cri.SecurityProfile_Unconfined, "")},
		"local":               {sc: profile(local, "p"), want: "p", without: errdefs.IsFailedPrecondition},
		"local prefixed":      {sc: profile(local, "localhost/p"), want: "p", without: errdefs.IsFailedPrecondition},
		"legacy default":      {sc: legacy("runtime/default"), want: "the-default"},
		"legacy unconfined":   {sc: legacy("unconfined")},
		"legacy local":        {sc: legacy("localhost/p//child"), want: "p//child", without: errdefs.IsFailedPrecondition},
		"new field wins":      {sc: &cri.LinuxContainerSecurityContext{Apparmor: profile(local, "p").Apparmor, ApparmorProfile: "unconfined"}, want: "p", without: errdefs.IsFailedPrecondition},
		"privileged":          {sc: &cri.LinuxContainerSecurityContext{Privileged: true, Apparmor: profile(cri.SecurityProfile_RuntimeDefault, "").Apparmor}},
		"privileged, named":   {sc: &cri.LinuxContainerSecurityContext{Privileged: true, Apparmor: profile(local, "p").Apparmor}, want: "p", without: errdefs.IsFailedPrecondition},
		"empty name":          {sc: profile(local, ""), fails: errdefs.IsInvalidArgument, without: errdefs.IsInvalidArgument},
		"name with a blank":   {sc: profile(local, "p q"), fails: errdefs.IsInvalidArgument, without: errdefs.IsInvalidArgument},
		"default with a name": {sc: profile(cri.SecurityProfile_RuntimeDefault, "p"), fails: errdefs.IsInvalidArgument, without: errdefs.IsInvalidArgument},
		"unknown type":        {sc: profile(9, ""), fails: errdefs.IsInvalidArgument, without: errdefs.IsInvalidArgument},
		"legacy unknown":      {sc: legacy("p"), fails: errdefs.IsInvalidArgument, without: errdefs.IsInvalidArgument},
		"legacy empty name":   {sc: legacy("localhost/"), fails: errdefs.IsInvalidArgument, without: errdefs.IsInvalidArgument},
	} {
		for _, enabled := range []bool{true, false} {
			h, want, fails := testHost(), tc.want, tc.fails
			if h.AppArmor = enabled; !enabled {
				want, fails = "", tc.without
			}
			in := testInput()
			in.Security = tc.sc
			r, err := NewBuilder(h, Defaults{AppArmorProfile: "the-default"}).Build(in)
			switch {
			case fails != nil:
				if !fails(err) || !strings.Contains(err.Error(), "apparmor") {
					t.Errorf("%s, enabled %v: got error %v, want one that names apparmor", name, enabled, err)
				}
			case err != nil:
				t.Errorf("%s, enabled %v: got error %v, want none", name, enabled, err)
			case r.Spec.Process.ApparmorProfile != want:
				t.Errorf("%s, enabled %v: profile: got %q, want %q", name, enabled, r.Spec.Process.ApparmorProfile, want)
			}
		}
	}
}

func TestSELinux(t *testing.T) {
	h, in := testHost(), testInput()
	h.SELinux = true
	in.Security.SelinuxOptions = &cri.SELinuxOption{Type: "container_t"}
	in.ProcessLabel, in.MountLabel = "p", "m"
	s := mustBuild(t, h, in).Spec
	if s.Process.SelinuxLabel != "p" || s.Linux.MountLabel != "m" {
		t.Errorf("process and mount label: got %q and %q, want p and m", s.Process.SelinuxLabel, s.Linux.MountLabel)
	}
	for name, tc := range map[string]struct {
		sc      *cri.LinuxSandboxSecurityContext
		selinux bool
		fails   func(error) bool
	}{
		"level, enabled":    {&cri.LinuxSandboxSecurityContext{SelinuxOptions: &cri.SELinuxOption{Level: "s0"}}, true, nil},
		"level, disabled":   {&cri.LinuxSandboxSecurityContext{SelinuxOptions: &cri.SELinuxOption{Level: "s0"}}, false, nil},
		"invalid, enabled":  {&cri.LinuxSandboxSecurityContext{SelinuxOptions: &cri.SELinuxOption{Level: "s 0"}}, true, errdefs.IsInvalidArgument},
		"invalid, disabled": {&cri.LinuxSandboxSecurityContext{SelinuxOptions: &cri.SELinuxOption{Level: "s 0"}}, false, nil},
		"empty options":     {&cri.LinuxSandboxSecurityContext{SelinuxOptions: &cri.SELinuxOption{}}, false, nil},
		"no context":        {nil, false, nil},
		"seccomp":           {&cri.LinuxSandboxSecurityContext{Seccomp: localSeccomp("p")}, true, errdefs.IsInvalidArgument},
		"AppArmor":          {&cri.LinuxSandboxSecurityContext{Apparmor: localSeccomp("p")}, true, errdefs.IsFailedPrecondition},
	} {
		h.SELinux = tc.selinux
		b := NewBuilder(h, Defaults{})
		err := b.CheckSandbox(tc.sc)
		if tc.fails == nil && err != nil || tc.fails != nil && !tc.fails(err) {
			t.Errorf("%s: CheckSandbox: got error %v, want an error: %t", name, err, tc.fails != nil)
		}
		if tc.sc.GetSelinuxOptions() == nil {
			continue
		}
		in := testInput()
		in.Security.SelinuxOptions = tc.sc.GetSelinuxOptions()
		if _, err := b.Build(in); tc.fails == nil && err != nil || tc.fails != nil && !tc.fails(err) {
			t.Errorf("%s: Build: got error %v, want an error: %t", name, err, tc.fails != nil)
		}
	}
}

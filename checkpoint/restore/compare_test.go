package restore

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/checkpoint/archive"
	"github.com/criserver/criserver/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
)

// TestConfigMustFit checks each setting that CRIU restores from the checkpoint.
func TestConfigMustFit(t *testing.T) {
	for want, change := range map[string]func(*specs.Spec){
		"":                               func(*specs.Spec) {},
		"config.args":                    func(s *specs.Spec) { s.Process.Args = []string{"/other"} },
		"working_dir":                    func(s *specs.Spec) { s.Process.Cwd = "/tmp" },
		"tty":                            func(s *specs.Spec) { s.Process.Terminal = true },
		"user is 1:8":                    func(s *specs.Spec) { s.Process.User.UID = 1 },
		"groups":                         func(s *specs.Spec) { s.Process.User.AdditionalGids = nil },
		"no_new_privs":                   func(s *specs.Spec) { s.Process.NoNewPrivileges = false },
		"AppArmor":                       func(s *specs.Spec) { s.Process.ApparmorProfile = "x" },
		"capabilities":                   func(s *specs.Spec) { s.Process.Capabilities.Bounding = nil },
		`variable "A" has another value`: func(s *specs.Spec) { s.Process.Env[0] = "A=secret" },
		`variable "B" of`:                func(s *specs.Spec) { s.Process.Env = s.Process.Env[:1] },
		"readonly_rootfs":                func(s *specs.Spec) { s.Root.Readonly = false },
		"masked_paths":                   func(s *specs.Spec) { s.Linux.MaskedPaths = nil },
		"readonly_paths":                 func(s *specs.Spec) { s.Linux.ReadonlyPaths = nil },
		"seccomp":                        func(s *specs.Spec) { s.Linux.Seccomp.DefaultAction = "SCMP_ACT_ERRNO" },
		"namespaces":                     func(s *specs.Spec) { s.Linux.Namespaces[1].Path = "" },
		"devices":                        func(s *specs.Spec) { s.Linux.Devices = nil },
		`"/vol" is bind mount`:           func(s *specs.Spec) { s.Mounts[1].Options = []string{"rbind"} },
		`"/vol" of the checkpoint is m`:  func(s *specs.Spec) { s.Mounts = s.Mounts[:1] },
		`"/new" is not in`: func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/new", Type: "tmpfs"})
		},
		"config.image": nil,
	} {
		t.Run(want, func(t *testing.T) {
			u := &unpacker{info: &archive.ContainerInfo{Container: archive.Container{ImageID: "sha256:1"}}, spec: testSpec()}
			target := container.RestoreTarget{Config: testSpec(), ImageID: "sha256:1", Images: imagesDir(t, []proto.Message{thread(nil)}, testMounts())}
			if change != nil {
				change(target.Config)
			} else {
				target.ImageID = "sha256:2"
			}
			err := u.check(t.Context(), target)
			if want == "" && err != nil || want != "" && (!errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), want)) {
				t.Errorf("got %v, want an error with %q", err, want)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error has the value of a variable: %v", err)
			}
		})
	}
	u := &unpacker{info: &archive.ContainerInfo{}, spec: testSpec()}
	target := container.RestoreTarget{Config: testSpec(), Images: imagesDir(t, []proto.Message{thread(nil)}, testMounts())}
	target.Config.Mounts[1].Source, target.Config.Linux.Namespaces[1].Path = "/another", "/ns/2"
	if err := u.check(t.Context(), target); err != nil {
		t.Errorf("other sources of mounts and namespaces: %v", err)
	}
}

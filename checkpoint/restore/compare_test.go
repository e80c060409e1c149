package restore

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/creds"
	core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/mnt"
	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/checkpoint/archive"
	"github.com/criserver/criserver/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
)

// imagesDir returns a directory with images.
func imagesDir(t *testing.T, cores []proto.Message, mounts []proto.Message) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string][]byte{
		"core-1.img": image(t, cores...), "mountpoints-9.img": image(t, mounts...), descriptors: []byte("[]"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestConfigMustFit checks each setting that criu would restore from the checkpoint.
func TestConfigMustFit(t *testing.T) {
	for want, change := range map[string]func(*specs.Spec){
		"":                              func(*specs.Spec) {},
		"config.args":                   func(s *specs.Spec) { s.Process.Args = []string{"/other"} },
		"working_dir":                   func(s *specs.Spec) { s.Process.Cwd = "/tmp" },
		"tty":                           func(s *specs.Spec) { s.Process.Terminal = true },
		"user is 1:8":                   func(s *specs.Spec) { s.Process.User.UID = 1 },
		"groups":                        func(s *specs.Spec) { s.Process.User.AdditionalGids = nil },
		"no_new_privs":                  func(s *specs.Spec) { s.Process.NoNewPrivileges = false },
		"AppArmor":                      func(s *specs.Spec) { s.Process.ApparmorProfile = "x" },
		"capabilities":                  func(s *specs.Spec) { s.Process.Capabilities.Bounding = nil },
		`variable "A" differs`:          func(s *specs.Spec) { s.Process.Env[0] = "A=secret" },
		`variable "B" of`:               func(s *specs.Spec) { s.Process.Env = s.Process.Env[:1] },
		"readonly_rootfs":               func(s *specs.Spec) { s.Root.Readonly = false },
		"masked_paths":                  func(s *specs.Spec) { s.Linux.MaskedPaths = nil },
		"readonly_paths":                func(s *specs.Spec) { s.Linux.ReadonlyPaths = nil },
		"seccomp":                       func(s *specs.Spec) { s.Linux.Seccomp.DefaultAction = "SCMP_ACT_ERRNO" },
		"namespaces":                    func(s *specs.Spec) { s.Linux.Namespaces[1].Path = "" },
		"devices":                       func(s *specs.Spec) { s.Linux.Devices = nil },
		`"/vol" is bind mount`:          func(s *specs.Spec) { s.Mounts[1].Options = []string{"rbind"} },
		`"/vol" of the checkpoint is m`: func(s *specs.Spec) { s.Mounts = s.Mounts[:1] },
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

// TestImagesMustFit checks process images that would give a container more than its config.
func TestImagesMustFit(t *testing.T) {
	mounts := func(more ...*mnt.MntEntry) (list []proto.Message) {
		list = testMounts()
		for _, m := range more {
			list = append(list, m)
		}
		return list
	}
	zombie := thread(func(c *core.ThreadCoreEntry) { c.Creds, c.SeccompMode = &creds.CredsEntry{}, nil })
	second := thread(func(c *core.ThreadCoreEntry) { c.SeccompMode = nil })
	second.Tc = nil
	if err := checkCore(second, testSpec()); err != nil {
		t.Errorf("a second thread without a filter: %v", err)
	}
	zombie.Tc = task(taskZombie)
	if err := checkCore(zombie, testSpec()); err != nil {
		t.Errorf("a zombie: %v", err)
	}
	writable := func(e *mnt.MntEntry) { e.Flags = ptr(uint32(0)) }
	fine := thread(nil)
	for want, tc := range map[string]struct {
		core   *core.CoreEntry
		mounts []proto.Message
	}{
		"":                      {fine, mounts()},
		"more effective":        {thread(func(c *core.ThreadCoreEntry) { c.Creds.CapEff = []uint32{1 << 21} }), mounts()},
		"more bounding":         {thread(func(c *core.ThreadCoreEntry) { c.Creds.CapBnd = []uint32{0, 1} }), mounts()},
		"more ambient":          {thread(func(c *core.ThreadCoreEntry) { c.Creds.CapAmb = []uint32{0, 0, 1} }), mounts()},
		"no credentials":        {thread(func(c *core.ThreadCoreEntry) { c.Creds = nil }), mounts()},
		"no_new_privs":          {thread(func(c *core.ThreadCoreEntry) { c.Creds.NoNewPrivs = nil }), mounts()},
		"no seccomp filter":     {thread(func(c *core.ThreadCoreEntry) { c.SeccompMode = nil }), mounts()},
		"has the label":         {thread(func(c *core.ThreadCoreEntry) { c.Creds.LsmProfile = ptr("other") }), mounts()},
		"runs as root":          {thread(func(c *core.ThreadCoreEntry) { c.Creds.Suid = ptr(uint32(0)) }), mounts()},
		`mount at "/host"`:      {fine, mounts(mount("/host", mnt.Fstype_AUTO, nil))},
		"root file system can":  {fine, append(mounts()[1:], mount("/", mnt.Fstype_OVERLAYFS, writable))},
		`"/vol" can be written`: {fine, mounts(mount("/vol", mnt.Fstype_UNSUPPORTED, func(e *mnt.MntEntry) { external(e); writable(e) }))},
		`not a bind mount`:      {fine, mounts(mount("/vol", mnt.Fstype_AUTO, nil))},
		`"/proc" has the type`:  {fine, mounts(mount("/proc", mnt.Fstype_AUTO, nil))},
		`"/dev/fuse" has the`:   {fine, mounts(mount("/dev/fuse", mnt.Fstype_AUTO, nil))},
		`mount at "/etc"`:       {fine, mounts(mount("/proc/../etc", mnt.Fstype_TMPFS, nil))},
	} {
		t.Run(want, func(t *testing.T) {
			err := checkImages(imagesDir(t, []proto.Message{fine, tc.core}, tc.mounts), testSpec())
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("got %v, want an error with %q", err, want)
			}
		})
	}
}

// TestLabelsMustFit checks the labels of threads for containers with and without SELinux labels and AppArmor profiles.
func TestLabelsMustFit(t *testing.T) {
	for _, tc := range []struct {
		label, selinux, apparmor string
		ok                       bool
	}{
		{"", "", "", true},
		{"unconfined", "", "", true},
		{"x", "", "", false},
		{"profile", "", "profile", true},
		{"", "", "profile", false},
		{"unconfined", "", "profile", false},
		{"system_u:system_r:container_t:s0:c1,c2", "system_u:system_r:container_t:s0:c3,c4", "", true},
		{"", "system_u:system_r:container_t:s0:c3,c4", "", false},
	} {
		err := checkLSM(tc.label, &specs.Process{SelinuxLabel: tc.selinux, ApparmorProfile: tc.apparmor})
		if (err == nil) != tc.ok || err != nil && !errdefs.IsFailedPrecondition(err) {
			t.Errorf("%+v: got %v", tc, err)
		}
	}
}

func FuzzReadImage(f *testing.F) {
	f.Add(image(f, thread(nil)))
	f.Fuzz(func(t *testing.T, b []byte) {
		file := filepath.Join(t.TempDir(), "core-1.img")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		spec := testSpec()
		_ = readImage(file, &core.CoreEntry{}, func(c *core.CoreEntry) error { return checkCore(c, spec) })
		_ = readImage(file, &mnt.MntEntry{}, func(e *mnt.MntEntry) error { return checkMount(e, spec) })
	})
}

package restore

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/creds"
	core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/mnt"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
)

// image encodes a CRIU image.
func image(t testing.TB, entries ...proto.Message) []byte {
	t.Helper()
	b := make([]byte, imageHeader)
	for _, e := range entries {
		raw, err := proto.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(raw))), raw...)
	}
	return b
}

// ptr returns a pointer to a value.
func ptr[T any](v T) *T { return &v }

// task returns a task in a state.
func task(state uint32) *core.TaskCoreEntry {
	return &core.TaskCoreEntry{
		Personality: ptr(uint32(0)), TaskState: ptr(state), ExitCode: ptr(uint32(0)), Flags: ptr(uint32(0)), BlkSigset: ptr(uint64(0)), Comm: ptr("app"),
	}
}

// thread returns the first thread of a process with the credentials that testSpec allows.
func thread(alter func(*core.ThreadCoreEntry)) *core.CoreEntry {
	id := ptr(uint32(7))
	tc := &core.ThreadCoreEntry{
		FutexRla: ptr(uint64(0)), FutexRlaLen: ptr(uint32(0)), SeccompMode: ptr(core.SeccompMode(seccompFilter)),
		Creds: &creds.CredsEntry{
			Uid: id, Gid: id, Euid: id, Egid: id, Suid: id, Sgid: id, Fsuid: id, Fsgid: id, Secbits: ptr(uint32(0)), NoNewPrivs: ptr(uint32(1)),
			CapBnd: []uint32{1<<0 | 1<<5, 0}, CapEff: []uint32{0, 0},
		},
	}
	if alter != nil {
		alter(tc)
	}
	return &core.CoreEntry{Mtype: ptr(core.CoreEntry_X86_64), ThreadCore: tc, Tc: task(1)}
}

// mount returns a read-only mount.
func mount(at string, kind mnt.Fstype, alter func(*mnt.MntEntry)) *mnt.MntEntry {
	e := &mnt.MntEntry{
		Fstype: ptr(uint32(kind)), MntId: ptr(uint32(1)), RootDev: ptr(uint32(1)), ParentMntId: ptr(uint32(1)), Flags: ptr(uint32(1)), Root: ptr("/"),
		Mountpoint: ptr(at), Source: ptr("x"), Options: ptr(""),
	}
	if alter != nil {
		alter(e)
	}
	return e
}

// external makes a mount a bind mount.
func external(e *mnt.MntEntry) { e.ExtKey = ptr(e.GetMountpoint()) }

// testMounts returns the mounts of a container with testSpec.
func testMounts() []proto.Message {
	return []proto.Message{
		mount("/", mnt.Fstype_OVERLAYFS, nil), mount("/proc", mnt.Fstype_PROC, nil), mount("/vol", mnt.Fstype_UNSUPPORTED, external),
		mount("/proc/sys", mnt.Fstype_PROC, nil), mount("/proc/kcore", mnt.Fstype_UNSUPPORTED, external), mount("/dev/fuse", mnt.Fstype_UNSUPPORTED, external),
	}
}

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

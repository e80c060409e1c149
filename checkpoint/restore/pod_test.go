package restore

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/checkpoint/archive"
	"github.com/criserver/criserver/sandbox"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestRestorePod(t *testing.T) {
	b := newBed(t)
	b.write(nil, map[string][]byte{"a": archiveOf(t, testFiles(t, "a")), "b": archiveOf(t, testFiles(t, "b"))}, tarOf(t, regular("seg", "shared")))
	got, err := b.restore(b.request("b", "a"))
	if err != nil {
		t.Fatal(err)
	}
	want := &cri.RestorePodResponse{PodSandboxId: "pod", RestoredContainers: []*cri.RestoredContainer{{Name: "b", ContainerId: "id-b"}, {Name: "a", ContainerId: "id-a"}}}
	if got.String() != want.String() {
		t.Errorf("got %v, want %v", got, want)
	}
	if shm, err := os.ReadFile(filepath.Join(b.pods.shm, "seg")); err != nil || string(shm) != "shared" {
		t.Errorf("/dev/shm: %q, %v", shm, err)
	}
	if file, err := os.ReadFile(filepath.Join(b.containers.rootfs, "etc/new")); err != nil || string(file) != "new" {
		t.Errorf("root file system: %q, %v", file, err)
	}
	if _, err := os.Lstat(filepath.Join(b.containers.rootfs, "gone")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a deleted file: %v", err)
	}
	if env := b.containers.restore.Env; !slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "PATH=/opt:") }) {
		t.Errorf("environment of the runtime: %v", env)
	}
	if left, _ := os.ReadDir(b.cfg.Dir); len(left) > 0 {
		t.Errorf("records are left: %v", left)
	}
	if _, err := b.restore(b.request("a", "b")); !errdefs.IsAlreadyExists(err) || len(b.pods.list) != 1 {
		t.Errorf("second restore: %v", err)
	}
}

// TestRequestRules checks that invalid requests have no effect.
func TestRequestRules(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*cri.RestorePodRequest)
		text   string
		is     func(error) bool
	}{
		"no path":            {func(r *cri.RestorePodRequest) { r.CheckpointPath = "" }, "checkpoint_path", errdefs.IsInvalidArgument},
		"relative path":      {func(r *cri.RestorePodRequest) { r.CheckpointPath = "a" }, "absolute", errdefs.IsInvalidArgument},
		"missing checkpoint": {func(r *cri.RestorePodRequest) { r.CheckpointPath += "/none" }, "checkpoint_path", errdefs.IsNotFound},
		"no config":          {func(r *cri.RestorePodRequest) { r.Config = nil }, "config", errdefs.IsInvalidArgument},
		"option":             {func(r *cri.RestorePodRequest) { r.Options = map[string]string{"x": ""} }, `options: "x"`, errdefs.IsInvalidArgument},
		"no containers":      {func(r *cri.RestorePodRequest) { r.ContainerConfigs = nil }, "container_configs", errdefs.IsInvalidArgument},
		"no name":            {func(r *cri.RestorePodRequest) { r.ContainerConfigs[0].Metadata.Name = "" }, "metadata.name", errdefs.IsInvalidArgument},
		"name twice":         {func(r *cri.RestorePodRequest) { r.ContainerConfigs[1].Metadata.Name = "a" }, "twice", errdefs.IsInvalidArgument},
		"one is missing":     {func(r *cri.RestorePodRequest) { r.ContainerConfigs = r.ContainerConfigs[:1] }, "exactly", errdefs.IsInvalidArgument},
		"another name":       {func(r *cri.RestorePodRequest) { r.ContainerConfigs[1].Metadata.Name = "c" }, "exactly", errdefs.IsInvalidArgument},
		"another handler":    {func(r *cri.RestorePodRequest) { r.RuntimeHandler = "crun" }, "runtime_handler", errdefs.IsFailedPrecondition},
		"host network": {func(r *cri.RestorePodRequest) {
			r.Config.Linux = &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE}}}
		}, "namespace_options.network", errdefs.IsFailedPrecondition},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			b.write(nil, map[string][]byte{"a": archiveOf(t, testFiles(t, "a")), "b": archiveOf(t, testFiles(t, "b"))}, nil)
			r := b.request("a", "b")
			tc.change(r)
			if _, err := b.restore(r); !tc.is(err) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %v, want an error with %q", err, tc.text)
			}
			if b.containers.count != 0 {
				t.Error("a container was created")
			}
			b.checkNothingLeft()
		})
	}
	b := newBed(t)
	if _, err := b.RestorePod(context.Background(), b.request("a")); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "deadline") {
		t.Errorf("without a deadline: %v", err)
	}
}

// TestDamagedCheckpoint checks that nothing remains of a pod whose checkpoint is damaged.
func TestDamagedCheckpoint(t *testing.T) {
	for name, tc := range map[string]struct {
		damage func(b *bed, m *archive.Manifest)
		is     func(error) bool
	}{
		"digest of a container": {func(_ *bed, m *archive.Manifest) { m.Containers[1].SHA256 = strings.Repeat("ab", 32) }, errdefs.IsDataLoss},
		"digest of /dev/shm":    {func(_ *bed, m *archive.Manifest) { m.Parts[0].SHA256 = strings.Repeat("ab", 32) }, errdefs.IsDataLoss},
		"size":                  {func(_ *bed, m *archive.Manifest) { m.Containers[1].Size++ }, errdefs.IsDataLoss},
		"truncation":            {func(b *bed, m *archive.Manifest) { truncate(b.t, filepath.Join(b.dir, m.Containers[1].Path), 700) }, errdefs.IsDataLoss},
		"missing file":          {func(b *bed, m *archive.Manifest) { _ = os.Remove(filepath.Join(b.dir, m.Containers[1].Path)) }, errdefs.IsNotFound},
		"a changed byte":        {func(b *bed, m *archive.Manifest) { flip(b.t, filepath.Join(b.dir, m.Containers[1].Path), 600) }, errdefs.IsDataLoss},
		"link":                  {func(b *bed, m *archive.Manifest) { relink(b.t, filepath.Join(b.dir, m.Containers[1].Path)) }, errdefs.IsInvalidArgument},
		"version":               {func(_ *bed, m *archive.Manifest) { m.Version = 2 }, errdefs.IsFailedPrecondition},
		"architecture":          {func(_ *bed, m *archive.Manifest) { m.Architecture = "s390x" }, errdefs.IsFailedPrecondition},
		"cgroups":               {func(_ *bed, m *archive.Manifest) { m.CgroupV2 = false }, errdefs.IsFailedPrecondition},
		"changed manifest": {func(b *bed, _ *archive.Manifest) {
			b.afterSign = func(m *archive.Manifest) { m.Pod.Hostname = "other" }
		}, errdefs.IsFailedPrecondition},
		"no code": {func(b *bed, _ *archive.Manifest) { b.afterSign = func(m *archive.Manifest) { m.MAC = "" } }, errdefs.IsFailedPrecondition},
		"another node": {func(b *bed, _ *archive.Manifest) {
			b.afterSign = func(m *archive.Manifest) { _ = m.Sign(bytes.Repeat([]byte{9}, 32)) }
		}, errdefs.IsFailedPrecondition},
		"another container": {func(_ *bed, m *archive.Manifest) { m.Containers[0].File, m.Containers[1].File = swap(m) }, errdefs.IsInvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			b.write(func(m *archive.Manifest) { tc.damage(b, m) },
				map[string][]byte{"a": archiveOf(t, testFiles(t, "a")), "b": archiveOf(t, testFiles(t, "b"))}, tarOf(t, regular("seg", "shared")))
			if _, err := b.restore(b.request("a", "b")); !tc.is(err) {
				t.Errorf("got %v", err)
			}
			b.checkNothingLeft()
		})
	}
}

func swap(m *archive.Manifest) (a, b archive.File) { return m.Containers[1].File, m.Containers[0].File }

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func flip(t *testing.T, path string, at int) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err == nil {
		raw[at] ^= 1
		err = os.WriteFile(path, raw, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func relink(t *testing.T, path string) {
	t.Helper()
	if err := errors.Join(os.Rename(path, path+".real"), os.Symlink(filepath.Base(path)+".real", path)); err != nil {
		t.Fatal(err)
	}
}

// TestRollback checks that the pod is removed, and that the record stays if the pod cannot be removed, so that the next
// daemon removes the pod.
func TestRollback(t *testing.T) {
	b := newBed(t)
	b.write(nil, map[string][]byte{"a": archiveOf(t, testFiles(t, "a"))}, nil)
	cause, removal := errors.New("no container"), errors.New("busy")
	b.containers.fail = cause
	if _, err := b.restore(b.request("a")); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
	b.checkNothingLeft()
	b.pods.removeErr = removal
	if _, err := b.restore(b.request("a")); !errors.Is(err, cause) || !errors.Is(err, removal) {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(b.cfg.Dir); len(left) != 1 || len(b.pods.list) != 1 {
		t.Fatalf("records %v, %d pods, want one of each", left, len(b.pods.list))
	}
	for _, name := range []string{"torn.json", ".temporary.json.criserver-1"} {
		if err := os.WriteFile(filepath.Join(b.cfg.Dir, name), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.pods.removeErr = nil
	next := New(b.cfg)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := next.RestorePod(ctx, b.request("a")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("restore before the recovery: %v", err)
	}
	if err := next.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	// While the daemon serves requests, a client creates a pod with the name of the incomplete one.
	newer := &sandbox.Pod{ID: "newer", Config: b.pods.list[0].Config}
	b.pods.list = append(b.pods.list, newer)
	if err := next.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(b.cfg.Dir); len(left) != 1 || left[0].Name() != "torn.json" || len(b.pods.list) != 1 || b.pods.list[0] != newer {
		t.Errorf("after the recovery: records %v, pods %v, want the torn record and the newer pod", left, b.pods.list)
	}
}

// TestCancelledRestore checks that a restore removes the pod if its caller leaves, and that a retry waits for the
// removal and succeeds.
func TestCancelledRestore(t *testing.T) {
	b := newBed(t)
	b.write(nil, map[string][]byte{"a": archiveOf(t, testFiles(t, "a"))}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	left := make(chan struct{})
	b.pods.onRun = func() { cancel(); <-left }
	if _, err := b.RestorePod(ctx, b.request("a")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	b.pods.onRun = nil
	close(left)
	if _, err := b.restore(b.request("a")); err != nil || b.pods.removed != 1 || b.containers.count != 1 {
		t.Errorf("retry: got %v, %d removed pods and %d containers, want one of each", err, b.pods.removed, b.containers.count)
	}
}

// TestHostileArchive checks archives that no criserver writes.
func TestHostileArchive(t *testing.T) {
	outside := t.TempDir()
	link := func(h tar.Header) entry { h.Mode = 0o777; return entry{Header: h} }
	diff := func(t *testing.T, entries ...entry) func([]file) []file {
		return func(f []file) []file { return replace(f, archive.RootFSDiffFile, tarOf(t, entries...)) }
	}
	set := func(name string, content []byte) func([]file) []file {
		return func(f []file) []file { return replace(f, name, content) }
	}
	for name, alter := range map[string]func([]file) []file{
		"name above":            diff(t, regular("../escape", "x")),
		"hard link above":       diff(t, link(tar.Header{Name: "l", Typeflag: tar.TypeLink, Linkname: "../../etc/passwd"})),
		"device":                diff(t, entry{Header: tar.Header{Name: "sda", Typeflag: tar.TypeBlock, Devmajor: 8}}),
		"unknown type":          diff(t, entry{Header: tar.Header{Name: "x", Typeflag: 'Z'}}),
		"torn diff":             set(archive.RootFSDiffFile, tarOf(t, regular("a", strings.Repeat("x", 5000)))[:1024]),
		"deleted root":          set(archive.DeletedFile, []byte(`["/"]`)),
		"deleted above":         set(archive.DeletedFile, []byte(`["/../x"]`)),
		"deleted relative":      set(archive.DeletedFile, []byte(`["x"]`)),
		"deleted is no list":    set(archive.DeletedFile, []byte(`{}`)),
		"no info":               set(archive.InfoFile, nil),
		"version":               set(archive.InfoFile, []byte(`{"version":2,"container":{"name":"a"}}`)),
		"no spec":               set(archive.SpecFile, nil),
		"empty spec":            set(archive.SpecFile, []byte(`{}`)),
		"no processes":          set(archive.ImagePath("pstree.img"), nil),
		"no cores":              set(archive.ImagePath("core-1.img"), nil),
		"no mounts":             set(archive.ImagePath("mountpoints-1.img"), nil),
		"torn image":            set(archive.ImagePath("core-1.img"), image(t, thread(nil))[:20]),
		"huge entry":            set(archive.ImagePath("core-1.img"), []byte("12345678\xff\xff\xff\xff")),
		"many descriptors":      set(archive.ImagePath(descriptors), []byte(`["","","","pipe:[1]"]`)),
		"descriptors no list":   set(archive.ImagePath(descriptors), []byte(`{}`)),
		"files of /dev/shm":     set(archive.ShmFile, tarOf(t)),
		"unknown entry":         set("hooks.json", []byte("{}")),
		"directory with images": set("checkpoint/x/core-1.img", image(t)),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			b.write(nil, map[string][]byte{"a": archiveOf(t, alter(testFiles(t, "a")))}, nil)
			if _, err := b.restore(b.request("a")); !errdefs.IsInvalidArgument(err) && !errdefs.IsFailedPrecondition(err) && !errdefs.IsResourceExhausted(err) {
				t.Errorf("got %v", err)
			}
			b.checkNothingLeft()
		})
	}
	t.Run("links to the host", func(t *testing.T) {
		b := newBed(t)
		b.write(nil, map[string][]byte{"a": archiveOf(t, diff(t,
			link(tar.Header{Name: "out", Typeflag: tar.TypeSymlink, Linkname: outside}), regular("out/escape", "x"),
			link(tar.Header{Name: "up", Typeflag: tar.TypeSymlink, Linkname: "../../../../../../.." + outside}), regular("up/escape", "x"),
		)(testFiles(t, "a")))}, nil)
		_, err := b.restore(b.request("a"))
		if left, _ := os.ReadDir(outside); len(left) > 0 {
			t.Errorf("restore: %v; files outside of the root file system: %v, want none", err, left)
		}
	})
	t.Run("deleted through a link", func(t *testing.T) {
		victim := filepath.Join(outside, "victim")
		if err := os.WriteFile(victim, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		root := t.TempDir()
		if err := os.Symlink(outside, filepath.Join(root, "out")); err != nil {
			t.Fatal(err)
		}
		_ = remove(root, []string{"/out/victim"})
		if _, err := os.Stat(victim); err != nil {
			t.Error(err)
		}
	})
}

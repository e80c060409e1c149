package restore

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/checkpoint/archive"
	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/internal/criu"
	"github.com/criserver/criserver/sandbox"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// file is an entry of an archive.
type file struct {
	name    string
	content []byte
}

// testSpec returns an OCI config as the container manager makes it.
func testSpec() *specs.Spec {
	return &specs.Spec{
		Process: &specs.Process{
			Args: []string{"/app"}, Env: []string{"A=1", "B=2"}, Cwd: "/", NoNewPrivileges: true, User: specs.User{UID: 7, GID: 8, AdditionalGids: []uint32{9, 10}},
			Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN", "CAP_KILL"}},
		},
		Root: &specs.Root{Readonly: true},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc"}, {Destination: "/vol", Type: "bind", Source: "/a", Options: []string{"rbind", "ro"}},
		},
		Linux: &specs.Linux{
			MaskedPaths: []string{"/proc/kcore"}, ReadonlyPaths: []string{"/proc/sys"}, Seccomp: &specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_ALLOW"},
			Namespaces: []specs.LinuxNamespace{{Type: "pid"}, {Type: "network", Path: "/ns/1"}},
			Devices:    []specs.LinuxDevice{{Path: "/dev/fuse"}},
		},
	}
}

func testOrigin() archive.Origin {
	return archive.Origin{Version: archive.Version, Architecture: runtime.GOARCH, CgroupV2: true, Runtime: archive.Runtime{Handler: "runc"}}
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// entry is an entry of a tar. tarOf sets the size in the header.
type entry struct {
	tar.Header
	content string
}

// tarOf returns a tar with these entries.
func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		e.Size = int64(len(e.content))
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func regular(name, content string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, content}
}

// testFiles returns the entries of a valid archive.
func testFiles(t testing.TB, name string) []file {
	t.Helper()
	return []file{
		{archive.InfoFile, marshal(t, archive.ContainerInfo{Origin: testOrigin(), Container: archive.Container{Name: name, ImageID: "sha256:1"}})},
		{archive.SpecFile, marshal(t, testSpec())},
		{archive.DeletedFile, []byte(`["/gone"]`)},
		{archive.RootFSDiffFile, tarOf(t, regular("etc/new", "new"))},
		{archive.ImagePath("inventory.img"), image(t)},
		{archive.ImagePath("pstree.img"), image(t)},
		{archive.ImagePath(descriptors), []byte(`["/dev/null","pipe:[1]","pipe:[2]"]`)},
		{archive.ImagePath("core-1.img"), image(t, thread(nil))},
		{archive.ImagePath("mountpoints-1.img"), image(t, testMounts()...)},
	}
}

// replace returns the files with another content of one of them; nil removes the file.
func replace(files []file, name string, content []byte) []file {
	files = slices.Clone(files)
	for i := range files {
		if files[i].name == name {
			if content == nil {
				return slices.Delete(files, i, i+1)
			}
			files[i].content = content
			return files
		}
	}
	return append(files, file{name, content})
}

func archiveOf(t testing.TB, files []file) []byte {
	t.Helper()
	var list []entry
	for _, f := range files {
		list = append(list, regular(f.name, string(f.content)))
	}
	return tarOf(t, list...)
}

// bed is a Manager with fakes around it.
type bed struct {
	*Manager
	t          *testing.T
	dir        string // of the checkpoint
	pods       *fakePods
	containers *fakeContainers
	archives   bool                    // containers can be created from archives
	unpacked   string                  // has a directory for each image
	unpackedID string                  // of the image with a checkpoint
	afterSign  func(*archive.Manifest) // changes the manifest after it was signed, or is nil
}

func newBed(t *testing.T) *bed {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("unpacking needs root")
	}
	b := &bed{t: t, dir: t.TempDir(), pods: &fakePods{shm: t.TempDir()}}
	b.containers = &fakeContainers{t: t, spec: testSpec(), imageID: "sha256:1"}
	b.Manager = New(Config{
		Dir: filepath.Join(t.TempDir(), "restores"), KeyFile: filepath.Join(t.TempDir(), "key"), Archives: func() bool { return b.archives }, CgroupV2: true, Pods: b.pods, Containers: b.containers,
		CRIU: func(context.Context, string) (criu.Program, error) {
			return criu.Program{Path: "/opt/criu", Version: "4.2.1"}, nil
		},
		ReadImage: func(_ context.Context, id string, read func(string) error) error {
			return read(filepath.Join(b.unpacked, id))
		},
	})
	if err := errors.Join(b.Load(t.Context()), b.Recover(t.Context())); err != nil {
		t.Fatal(err)
	}
	return b
}

// write writes a pod checkpoint.
func (b *bed) write(alter func(*archive.Manifest), archives map[string][]byte, shm []byte) {
	b.t.Helper()
	m := &archive.Manifest{Origin: testOrigin(), Pod: archive.Pod{Network: archive.NamespaceOfPod, IPC: archive.NamespaceOfPod}}
	add := func(path string, content []byte) archive.File {
		full := filepath.Join(b.dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
			b.t.Fatal(err)
		}
		if err := os.WriteFile(full, content, 0o600); err != nil {
			b.t.Fatal(err)
		}
		sum := sha256.Sum256(content)
		return archive.File{Path: path, Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}
	}
	names := make([]string, 0, len(archives))
	for name := range archives {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		m.Containers = append(m.Containers, archive.ManifestContainer{Name: name, ImageID: "sha256:1", File: add(archive.ContainerPath(i, name), archives[name])})
	}
	if shm != nil {
		m.Parts = append(m.Parts, archive.Part{Name: archive.PartShm, File: add(archive.PodShmFile, shm)})
	}
	if alter != nil {
		alter(m)
	}
	key, err := archive.MakeKey(b.cfg.KeyFile)
	if err := errors.Join(err, m.Sign(key)); err != nil {
		b.t.Fatal(err)
	}
	if b.afterSign != nil {
		b.afterSign(m)
	}
	add(archive.ManifestFile, marshal(b.t, m))
}

func (b *bed) request(names ...string) *cri.RestorePodRequest {
	r := &cri.RestorePodRequest{CheckpointPath: b.dir, Config: &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: "p", Uid: "u", Namespace: "n"}}}
	for _, name := range names {
		r.ContainerConfigs = append(r.ContainerConfigs, &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: name}})
	}
	return r
}

func (b *bed) restore(r *cri.RestorePodRequest) (*cri.RestorePodResponse, error) {
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	return b.RestorePod(ctx, r)
}

// checkNothingLeft checks that a restore that failed has left neither a pod nor a record.
func (b *bed) checkNothingLeft() {
	b.t.Helper()
	if len(b.pods.list) != 0 {
		b.t.Errorf("%d pods are left", len(b.pods.list))
	}
	if left, err := os.ReadDir(b.cfg.Dir); err == nil && len(left) > 0 {
		b.t.Errorf("a record is left: %v", left)
	}
}

type fakePods struct {
	list      []*sandbox.Pod
	shm       string
	removeErr error
	removed   int    // number of removed pods
	onRun     func() // called by RunPod after it has made the pod, or nil
}

func (f *fakePods) RunPod(_ context.Context, config *cri.PodSandboxConfig, _ string) (string, error) {
	f.list = append(f.list, &sandbox.Pod{ID: "pod", Config: config, Shm: f.shm})
	if f.onRun != nil {
		f.onRun()
	}
	return "pod", nil
}

func (f *fakePods) Get(id string) (*sandbox.Pod, error) {
	for _, p := range f.list {
		if p.ID == id {
			return p, nil
		}
	}
	return nil, errdefs.ErrNotFound
}

func (f *fakePods) List() []*sandbox.Pod               { return slices.Clone(f.list) }
func (f *fakePods) Stop(context.Context, string) error { return f.removeErr }

func (f *fakePods) Remove(_ context.Context, id string) error {
	f.list = slices.DeleteFunc(f.list, func(p *sandbox.Pod) bool { return p.ID == id })
	f.removed++
	return nil
}

// fakeContainers restores a checkpoint like the container manager.
type fakeContainers struct {
	t       *testing.T
	spec    *specs.Spec
	imageID string
	rootfs  string // of the last container
	image   string // of the last container
	restore container.Restore
	fail    error
	count   int
}

func (f *fakeContainers) CreateRestored(ctx context.Context, _ string, config *cri.ContainerConfig, r container.Restore) (string, error) {
	f.count++
	f.image = config.GetImage().GetImage()
	f.rootfs, f.restore = f.t.TempDir(), r
	images := f.t.TempDir()
	if err := os.WriteFile(filepath.Join(f.rootfs, "gone"), nil, 0o600); err != nil {
		return "", err
	}
	if err := r.Unpack(ctx, f.rootfs, images); err != nil {
		return "", err
	}
	if err := r.Check(ctx, container.RestoreTarget{Config: f.spec, ImageID: f.imageID, Images: images}); err != nil {
		return "", err
	}
	return fmt.Sprintf("id-%s", config.GetMetadata().GetName()), f.fail
}

package image

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"

	"github.com/criserver/criserver/image/internal/imagetest"
	"github.com/criserver/criserver/internal/ids"
)

// bed is a Manager with the directories of a test.
type bed struct {
	*Manager
	dir string
	cfg Config
}

func needRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("unpacks files of other users and mounts overlay: must be root")
	}
}

// testLimits are the limits of images in tests.
var testLimits = Limits{Layers: 500, Entries: 1_000_000, LayerBytes: 64 << 30}

// newBed returns a restored manager, for which the registries are insecure. At the end of the test
// there must be no mounts and no files in the staging directory.
func newBed(tb testing.TB, registries ...*imagetest.Registry) *bed {
	tb.Helper()
	needRoot(tb)
	dir := tb.TempDir()
	var conf strings.Builder
	for _, r := range registries {
		fmt.Fprintf(&conf, "[[registry]]\nlocation = %q\ninsecure = true\n", r.Host)
	}
	b := &bed{dir: dir, cfg: Config{
		Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"),
		RegistriesConf:    write(tb, filepath.Join(dir, "registries.conf"), conf.String()),
		RegistriesConfDir: filepath.Join(dir, "registries.conf.d"),
		PolicyPath:        write(tb, filepath.Join(dir, "policy.json"), `{"default":[{"type":"insecureAcceptAnything"}]}`),
		AuthFile:          write(tb, filepath.Join(dir, "auth.json"), `{}`),
		MaxParallelLayers: 6, ProgressWindow: 2 * time.Minute, Limits: testLimits,
	}}
	b.restart(tb)
	tb.Cleanup(func() { b.checkLeaks(tb) })
	return b
}

func write(tb testing.TB, path, content string) string {
	tb.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// restart replaces the manager like a new process.
func (b *bed) restart(tb testing.TB) {
	tb.Helper()
	m, err := New(b.cfg)
	if err != nil {
		tb.Fatal(err)
	}
	if err := m.Restore(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	b.Manager = m
}

func (b *bed) checkLeaks(tb testing.TB) {
	for _, r := range b.rootfs.Records() {
		if err := b.UnmountRootFS(context.Background(), r.ContainerID); err != nil {
			tb.Error(err)
		}
	}
	for _, r := range b.volumes.Records() {
		if err := b.UnmountVolumes(context.Background(), r.ContainerID); err != nil {
			tb.Error(err)
		}
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(b.dir))
	if err != nil || len(mounts) > 0 {
		tb.Errorf("leftover mounts: %v, %v", mounts, err)
	}
	if staged := names(tb, b.Manager.dir(stageDir)); len(staged) > 0 {
		tb.Errorf("leftovers in the staging directory: %v", staged)
	}
}

func names(tb testing.TB, dir string) []string {
	tb.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		tb.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func (b *bed) pull(tb testing.TB, ref string) Image {
	tb.Helper()
	img, err := b.Pull(tb.Context(), PullRequest{Ref: ref})
	if err != nil {
		tb.Fatalf("pull %s: %v", ref, err)
	}
	return img
}

// mount mounts a root file system of the image and returns its mount point and the id of the container.
func (b *bed) mount(tb testing.TB, img Image) (root, container string) {
	tb.Helper()
	root, container = tb.TempDir(), ids.New()
	if _, err := b.MountRootFS(tb.Context(), img.ID, container, root); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.UnmountRootFS(context.Background(), container); err != nil {
			tb.Error(err)
		}
	})
	return root, container
}

func (b *bed) layerCount(tb testing.TB) int { return len(names(tb, b.Manager.dir(layersDir))) }

func read(tb testing.TB, path ...string) string {
	tb.Helper()
	got, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		tb.Fatal(err)
	}
	return string(got)
}

func equal[T comparable](tb testing.TB, what string, got, want T) {
	tb.Helper()
	if got != want {
		tb.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func equalList(tb testing.TB, what string, got, want []string) {
	tb.Helper()
	if !slices.Equal(got, want) {
		tb.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

// eventually waits for a condition that another goroutine fulfills.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	if err := waitFor(what, ok); err != nil {
		tb.Fatal(err)
	}
}

// waitFor waits like eventually and returns an error. HTTP handlers use it, because only the
// goroutine of a test can end the test.
func waitFor(what string, ok func() bool) error {
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("%s: not within 10 s", what)
		}
	}
	return nil
}

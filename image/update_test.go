package image

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/criserver/criserver/image/internal/imagetest"
)

// TestUpdate replaces the settings of a manager with an image: its pinned images, and the limits of
// later pulls.
func TestUpdate(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	for tag, name := range map[string]string{"1": "a", "2": "b"} {
		reg.Push("app", tag, imagetest.Image{Layers: []imagetest.Layer{imagetest.Files(t, imagetest.File(name, "1"), imagetest.File(name+name, "2"))}})
	}
	first := b.pull(t, reg.Host+"/app:1")
	if first.Pinned {
		t.Error("the image is pinned before the update")
	}
	cfg := b.cfg
	cfg.Root, cfg.RunRoot = "/elsewhere", "/elsewhere"
	cfg.PinnedImages, cfg.Limits.Entries = []string{reg.Host + "/app:1"}, 1
	if err := b.CheckConfig(cfg); err != nil {
		t.Fatal(err)
	}
	if err := b.Update(cfg); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Get(first.ID.String()); err != nil || !got.Pinned {
		t.Errorf("image after the update: pinned %v, %v, want true", got.Pinned, err)
	}
	if _, err := b.Pull(t.Context(), PullRequest{Ref: reg.Host + "/app:2"}); !errdefs.IsResourceExhausted(err) {
		t.Errorf("pull of a layer with two entries: got %v, want ErrResourceExhausted", err)
	}
	cfg.Limits.Entries = 0
	if err := b.Update(cfg); !errdefs.IsInvalidArgument(err) {
		t.Errorf("limit 0: got %v, want ErrInvalidArgument", err)
	}
	if err := b.Update(b.cfg); err != nil {
		t.Fatal(err)
	}
	b.pull(t, reg.Host+"/app:2")
	if got, err := b.Get(first.ID.String()); err != nil || got.Pinned {
		t.Errorf("image after the second update: pinned %v, %v, want false", got.Pinned, err)
	}
}

// TestCheckConfig checks that each file that cannot be read is reported with its key.
func TestCheckConfig(t *testing.T) {
	b := newBed(t)
	dir := t.TempDir()
	invalid := write(t, filepath.Join(dir, "invalid"), "{ no = format")
	write(t, filepath.Join(dir, "namespace.json"), "{")
	write(t, filepath.Join(dir, "invalid.yaml"), "docker: [")
	for key, change := range map[string]func(*Config){
		"image.registries_conf: ": func(c *Config) { c.RegistriesConf = invalid },
		"image.policy: ":          func(c *Config) { c.PolicyPath = filepath.Join(dir, "missing") },
		"image.policy_dir: ":      func(c *Config) { c.PolicyDir = dir },
		"image.registries_d: ":    func(c *Config) { c.RegistriesD = dir },
		"image.auth_file: ":       func(c *Config) { c.AuthFile = invalid },
	} {
		cfg := b.cfg
		change(&cfg)
		err := b.CheckConfig(cfg)
		if err == nil || !strings.HasPrefix(err.Error(), key) || !strings.Contains(err.Error(), dir) {
			t.Errorf("got %v, want an error that begins with %q and names the file", err, key)
		}
		cfg.Root, cfg.RunRoot = t.TempDir(), t.TempDir()
		m, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.CheckFiles(t.Context()); err == nil || !strings.HasPrefix(err.Error(), key) {
			t.Errorf("files of the start: got %v, want an error that begins with %q", err, key)
		}
	}
	cfg := b.cfg
	cfg.AuthFile, cfg.ProgressWindow = filepath.Join(dir, "missing"), time.Second
	if err := b.CheckConfig(cfg); err != nil {
		t.Errorf("missing auth file: got %v", err)
	}
}

// TestCheckSystemFiles checks that a file of the system that cannot be read makes a reload fail, but
// not the start of the daemon.
func TestCheckSystemFiles(t *testing.T) {
	t.Setenv("CONTAINERS_REGISTRIES_CONF", write(t, filepath.Join(t.TempDir(), "registries.conf"), "{ no = format"))
	b := newBed(t)
	cfg := b.cfg
	cfg.Root, cfg.RunRoot, cfg.RegistriesConf, cfg.RegistriesConfDir = t.TempDir(), t.TempDir(), "", ""
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.CheckFiles(t.Context()); err != nil {
		t.Errorf("files of the start: got %v, want no error", err)
	}
	if err := m.CheckConfig(cfg); err == nil || !strings.HasPrefix(err.Error(), "image.registries_conf: ") {
		t.Errorf("files of a reload: got %v, want an error", err)
	}
}

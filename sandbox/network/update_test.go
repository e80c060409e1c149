package network

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/patience"
)

// TestUpdate replaces the directories of a running Network. The networks of the new directory are
// loaded, and the Network watches only the new directory.
func TestUpdate(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	for _, d := range []string{first, second} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, first, "10-a.conflist", `{"cniVersion":"1.1.0","name":"a","plugins":[{"type":"none"}]}`)
	writeFile(t, second, "10-b.conflist", `{"cniVersion":"1.1.0","name":"b","plugins":[{"type":"none"}]}`)
	cfg := Config{ConfDirs: []string{first}, BinDirs: []string{dir}, CacheDir: filepath.Join(dir, "cache"), NoBuiltin: true}
	n := New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	waitNetwork(t, n, "a")
	cfg.ConfDirs, cfg.NoBuiltin, cfg.CacheDir = []string{second}, false, "/elsewhere"
	if err := n.Update(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	waitNetwork(t, n, "b")
	if got := n.cfg(); got.CacheDir != filepath.Join(dir, "cache") || !got.NoBuiltin {
		t.Errorf("CacheDir %s, NoBuiltin %v: want the old values", got.CacheDir, got.NoBuiltin)
	}
	writeFile(t, first, "10-a.conflist", `{"cniVersion":"1.1.0","name":"changed","plugins":[{"type":"none"}]}`)
	writeFile(t, second, "05-c.conflist", `{"cniVersion":"1.1.0","name":"c","plugins":[{"type":"none"}]}`)
	waitNetwork(t, n, "c")
}

// waitNetwork waits until the default network has a name.
func waitNetwork(t *testing.T, n *Network, name string) {
	t.Helper()
	for end := patience.Until(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		l := n.loaded.Load().list
		if l != nil && l.conf.Name == name {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the default network is %+v, want %q", l, name)
		}
	}
}

// TestUpdateTemplate checks that a new template generates the network from the last pod CIDR, and
// that CheckConfig finds an invalid template.
func TestUpdateTemplate(t *testing.T) {
	dir := t.TempDir()
	n := New(Config{ConfDirs: []string{dir}, CacheDir: t.TempDir()})
	if err := n.SetPodCIDR(t.Context(), "10.244.1.0/24"); err != nil {
		t.Fatal(err)
	}
	cfg := Config{ConfDirs: []string{dir}, ConfTemplate: example(t)}
	if err := n.CheckConfig(cfg); err != nil {
		t.Fatal(err)
	}
	if err := n.Update(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, generatedFile))
	if err != nil || !strings.Contains(string(b), "10.244.1.0/24") {
		t.Errorf("generated file: %q, %v", b, err)
	}
	for name, text := range map[string]string{"syntax": "{{", "result": "{}"} {
		file := filepath.Join(t.TempDir(), "template")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		err := n.CheckConfig(Config{ConfDirs: []string{dir}, ConfTemplate: file})
		if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "cni.conf_template "+file) {
			t.Errorf("%s: got %v, want an error that names the key and the file", name, err)
		}
	}
}

package images

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/criserver/criserver/image"
	"github.com/criserver/criserver/image/pull"
	"github.com/criserver/criserver/internal/cli/clitest"
	"github.com/criserver/criserver/server/admin"
)

// archiveStore is an image store that keeps the archive it loads, and saves a fixed archive.
type archiveStore struct {
	admin.ImageStore
	request image.LoadRequest
	data    []byte
	loaded  []image.LoadedImage
	err     error         // of Load before the archive was read
	wait    chan struct{} // if it is not nil, Load waits for the second call of LoadProgress

	saveRequest image.SaveRequest
	saveErr     error // after half of the archive
}

func (s *archiveStore) Load(_ context.Context, req image.LoadRequest) ([]image.LoadedImage, error) {
	s.request = req
	if s.err != nil {
		return nil, s.err
	}
	var err error
	s.data, err = io.ReadAll(req.Archive)
	if s.wait != nil {
		<-s.wait
		<-s.wait
	}
	return s.loaded, err
}

// LoadProgress returns a layer that is being unpacked and one that exists.
func (s *archiveStore) LoadProgress(string) (image.PullProgress, bool) {
	if s.wait == nil {
		return image.PullProgress{}, false
	}
	select {
	case s.wait <- struct{}{}:
	default:
	}
	return image.PullProgress{Layers: []pull.LayerProgress{
		{Digest: "sha256:aaaaaaaaaaaaaaaaaa", Bytes: 1, Total: 1 << 20, State: "fetching"}, {Digest: "sha256:bbbbbbbbbbbbbbbbbb", Total: -1, State: "present"},
	}}, true
}

// saved is the archive of archiveStore.
var saved = strings.Repeat("archive ", 1<<19) // 4 MiB

func (s *archiveStore) Save(_ context.Context, w io.Writer, req image.SaveRequest) ([]image.SavedImage, error) {
	s.saveRequest = req
	if _, err := io.WriteString(w, saved[:len(saved)/2]); err != nil {
		return nil, err
	}
	if s.saveErr != nil {
		return nil, s.saveErr
	}
	req.Progress(image.PullProgress{Bytes: 1, Total: 2})
	_, err := io.WriteString(w, saved[len(saved)/2:])
	return []image.SavedImage{{ID: "sha256:1", SavedID: "sha256:2", Names: []string{"a:1", "a:2"}}}, err
}

// command runs a command with a standard input against a store.
func (s *archiveStore) command(t *testing.T, stdin io.Reader, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return clitest.Run(t, Commands, stdin, append(args, "--config", clitest.ServeAdmin(t, admin.Config{Images: s}))...)
}

func TestLoad(t *testing.T) {
	s := &archiveStore{loaded: []image.LoadedImage{{Image: image.Image{ID: "sha256:1", Size: 2048}, Names: []string{"a:1", "a:2"}}}}
	content := strings.Repeat("content ", 1<<18) // 2 MiB
	file := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := s.command(t, nil, "load", file, "--name", "b:1")
	if code != 0 || string(s.data) != content || s.request.Name != "b:1" || s.request.Size != int64(len(content)) {
		t.Errorf("file: exit code %d, %d bytes, request %+v, %s", code, len(s.data), s.request, stderr)
	}
	if want := "NAME     ID        SIZE      RESULT\na:1,a:2  sha256:1  2.00 KiB  loaded\n"; stdout != want {
		t.Errorf("got\n%s\nwant\n%s", stdout, want)
	}
	if !strings.Contains(stderr, "sending") || !strings.Contains(stderr, "done") {
		t.Errorf("progress: got %q", stderr)
	}
	for _, args := range [][]string{{"load"}, {"load", "-"}, {"load", "-", "-o", "json"}} {
		s.data = nil
		code, stdout, stderr = s.command(t, strings.NewReader(content), args...)
		if code != 0 || string(s.data) != content || s.request.Size != 0 {
			t.Errorf("%v: exit code %d, %d bytes, request %+v, %s", args, code, len(s.data), s.request, stderr)
		}
	}
	if !strings.Contains(stdout, `"names": [`) || !strings.Contains(stdout, `"errors": []`) {
		t.Errorf("JSON: got %s", stdout)
	}
}

// TestLoadProgress checks that the layers of a load that has succeeded are shown as done.
func TestLoadProgress(t *testing.T) {
	s := &archiveStore{wait: make(chan struct{}), loaded: []image.LoadedImage{{Image: image.Image{ID: "sha256:1"}}}}
	code, _, stderr := s.command(t, strings.NewReader("x"), "load")
	want := "archive sending\narchive done\naaaaaaaaaaaaa unpacking 1.00 MiB\nbbbbbbbbbbbbb exists\naaaaaaaaaaaaa done 1.00 MiB\n"
	if code != 0 || stderr != want {
		t.Errorf("exit code %d, got\n%s\nwant\n%s", code, stderr, want)
	}
}

func TestLoadFailures(t *testing.T) {
	s := &archiveStore{err: fmt.Errorf("archive is too large: %w", errdefs.ErrResourceExhausted)}
	code, _, stderr := s.command(t, strings.NewReader(strings.Repeat("x", 64<<20)), "load")
	if code != 1 || !strings.Contains(stderr, "archive is too large") {
		t.Errorf("refused archive: exit code %d, %s", code, stderr)
	}
	broken := io.MultiReader(strings.NewReader(strings.Repeat("x", 3<<20)), brokenReader{})
	code, _, stderr = (&archiveStore{}).command(t, broken, "load")
	if code != 1 || !strings.Contains(stderr, "read archive: broken disk") {
		t.Errorf("archive that cannot be read: exit code %d, %s", code, stderr)
	}
	partial := &archiveStore{loaded: []image.LoadedImage{{Image: image.Image{ID: "sha256:1"}}, {Label: "b:1", Err: errors.New("load image b:1: damaged")}}}
	code, stdout, _ := partial.command(t, strings.NewReader("x"), "load")
	if code != 1 || !strings.Contains(stdout, "sha256:1") || !strings.Contains(stdout, "error: load image b:1: damaged") {
		t.Errorf("archive with a damaged image: exit code %d, %s", code, stdout)
	}
	// These commands fail before they connect to the daemon.
	for want, commands := range map[int][][]string{
		1: {{"load", "/none"}, {"load", t.TempDir()}},
		2: {{"load", "a", "b"}, {"save"}, {"save", "a", "--format", "zip"}, {"load", "-o", "xml"}},
	} {
		for _, args := range commands {
			if code, _, stderr := clitest.Run(t, Commands, nil, args...); code != want || stderr == "" {
				t.Errorf("%v: exit code %d, want %d; %s", args, code, want, stderr)
			}
		}
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("broken disk") }

// TestLoadDirectory checks that a directory is sent as a tar with the files of the image layout, and that links do not
// lead out of the directory.
func TestLoadDirectory(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	for path, content := range map[string]string{
		filepath.Join(dir, "oci-layout"): "layout", filepath.Join(dir, "index.json"): "index", filepath.Join(dir, "blobs/sha256/aa"): "blob",
		filepath.Join(dir, "README"): "text", filepath.Join(dir, "ingest/x"): "text", secret: "secret",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	s := &archiveStore{}
	if code, _, stderr := s.command(t, nil, "load", dir); code != 0 {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
	want := map[string]string{"oci-layout": "layout", "index.json": "index", "blobs/sha256/aa": "blob"}
	if got := untar(t, s.data); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got files %v, want %v", got, want)
	}
	if err := os.Symlink(secret, filepath.Join(dir, "blobs/sha256/bb")); err != nil {
		t.Fatal(err)
	}
	if src, err := openDirectory(dir); err == nil || !strings.Contains(err.Error(), "bb") {
		t.Errorf("link out of the directory: got %v, %v", src, err)
	}
}

// untar returns the files of a tar.
func untar(t *testing.T, data []byte) map[string]string {
	t.Helper()
	files := make(map[string]string)
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(b)
	}
}

// TestLoadSkopeoDirectory checks that a directory of `skopeo copy` to dir: is sent as an image layout of OCI.
func TestLoadSkopeoDirectory(t *testing.T) {
	const manifest, instance = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json"}`, `{"schemaVersion":2}`
	blob, child := digest.FromString("blob"), digest.FromString(instance)
	dir := t.TempDir()
	for name, content := range map[string]string{
		"manifest.json": manifest, "version": "Directory Transport Version: 1.1\n", blob.Encoded(): "blob",
		child.Encoded() + ".manifest.json": instance, "signature-1": "signature", "README": "text",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := &archiveStore{}
	if code, _, stderr := s.command(t, nil, "load", dir, "--name", "a:1"); code != 0 || s.request.Name != "a:1" {
		t.Fatalf("exit code %d, request %+v, %s", code, s.request, stderr)
	}
	d := digest.FromString(manifest)
	want := map[string]string{
		"oci-layout": `{"imageLayoutVersion":"1.0.0"}`, "blobs/sha256/" + blob.Encoded(): "blob",
		"blobs/sha256/" + child.Encoded(): instance, "blobs/sha256/" + d.Encoded(): manifest,
		"index.json": fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":%q,"size":%d}]}`, d, len(manifest)),
	}
	if got := untar(t, s.data); !maps.Equal(got, want) {
		t.Errorf("got files %v, want %v", got, want)
	}
	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openDirectory(dir); err == nil || !strings.Contains(err.Error(), "manifest.json") {
		t.Errorf("malformed manifest: got %v", err)
	}
}

func TestSave(t *testing.T) {
	s := &archiveStore{}
	code, stdout, stderr := s.command(t, nil, "save", "a:1", "b", "--format", "docker-archive")
	if code != 0 || stdout != saved || s.saveRequest.Format != image.DockerArchive || strings.Join(s.saveRequest.Refs, " ") != "a:1 b" {
		t.Errorf("exit code %d, %d bytes, request %+v, %s", code, len(stdout), s.saveRequest, stderr)
	}
	if want := "saved a:1, a:2 with the id sha256:2 instead of sha256:1"; !strings.Contains(stderr, want) {
		t.Errorf("got %q, want %q", stderr, want)
	}
	file := filepath.Join(t.TempDir(), "a.tar")
	if code, stdout, stderr = s.command(t, nil, "save", "a:1", "-f", file); code != 0 || stdout != "" || s.saveRequest.Format != image.OCIArchive {
		t.Errorf("exit code %d, output %.20q, %s", code, stdout, stderr)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != saved {
		t.Errorf("file has %d bytes, %v", len(b), err)
	}
	// After an error, the former file exists and no other one.
	s.saveErr = fmt.Errorf("layer is damaged: %w", errdefs.ErrDataLoss)
	if code, _, stderr = s.command(t, nil, "save", "a:1", "-f", file); code != 1 || !strings.Contains(stderr, "layer is damaged") {
		t.Errorf("damaged layer: exit code %d, %s", code, stderr)
	}
	b, err := os.ReadFile(file)
	entries, readErr := os.ReadDir(filepath.Dir(file))
	if err != nil || readErr != nil || string(b) != saved || len(entries) != 1 {
		t.Errorf("after an error: file has %d bytes, directory %v, %v, %v", len(b), entries, err, readErr)
	}
	if code, _, _ = s.command(t, nil, "save", "a:1", "-f", "/none/a.tar"); code != 1 {
		t.Errorf("directory does not exist: exit code %d", code)
	}
}

// TestSaveThroughLink checks that save replaces or creates the target of a symbolic link, and keeps the link.
func TestSaveThroughLink(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "d/e"), 0o700), os.WriteFile(filepath.Join(dir, "old.tar"), []byte("old"), 0o600),
		os.Symlink("d/e", filepath.Join(dir, "to-e")), os.Symlink("old.tar", filepath.Join(dir, "one")), os.Symlink(filepath.Join(dir, "one"), filepath.Join(dir, "two")),
		os.Symlink("../new.tar", filepath.Join(dir, "d/e/dangling")), os.Symlink("loop", filepath.Join(dir, "loop"))); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"one": "old.tar", "two": "old.tar", "to-e/dangling": "d/new.tar"} {
		file := filepath.Join(dir, target)
		if err := os.RemoveAll(file); err != nil {
			t.Fatal(err)
		}
		if target == "old.tar" {
			if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		code, _, stderr := (&archiveStore{}).command(t, nil, "save", "a:1", "-f", filepath.Join(dir, link))
		info, err := os.Lstat(filepath.Join(dir, link))
		b, readErr := os.ReadFile(file)
		if code != 0 || err != nil || info.Mode().Type() != os.ModeSymlink || string(b) != saved {
			t.Errorf("%s: exit code %d, %v, target has %d bytes, %v; %s", link, code, err, len(b), readErr, stderr)
		}
	}
	if code, _, stderr := (&archiveStore{}).command(t, nil, "save", "a:1", "-f", filepath.Join(dir, "loop")); code != 1 || !strings.Contains(stderr, "too many levels") {
		t.Errorf("loop of links: exit code %d, %s", code, stderr)
	}
}

package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// imageSets are the directories with image layouts.
var imageSets = []string{"base", "heavy", programSet}

// Handler serves the images that Build built in dir. The repositories have the full names of the
// images: registry.k8s.io/pause:3.9 is /v2/registry.k8s.io/pause/manifests/3.9. Clients can push
// other images, which are kept in memory.
func Handler(dir string) (http.Handler, error) {
	b := &blobs{Handler: registry.NewInMemoryBlobHandler()}
	h := registry.New(
		registry.Logger(log.New(io.Discard, "", 0)),
		registry.WithReferrersSupport(true),
		registry.WithBlobHandler(b),
	)
	for _, set := range imageSets {
		path, err := layout.FromPath(filepath.Join(dir, set))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("images of %s: %w", dir, err)
		}
		b.dirs = append(b.dirs, filepath.Join(string(path), "blobs"))
		if err := load(h, path); err != nil {
			return nil, fmt.Errorf("images of %s: %w", path, err)
		}
	}
	return h, nil
}

// Serve serves the images of dir at a TCP address until the process ends. The port may be 0. It
// returns the address of the server.
func Serve(dir, address string) (addr string, err error) {
	handler, err := Handler(dir)
	if err != nil {
		return "", err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return "", err
	}
	go http.Serve(l, handler) // the server ends with the process
	return l.Addr().String(), nil
}

// Names returns the references of the images in dir.
func Names(dir string) ([]string, error) {
	found, err := descriptors(dir)
	names := make([]string, len(found))
	for i, d := range found {
		names[i] = d.Annotations[refName]
	}
	return names, err
}

// Digest returns the digest of the manifest or index of a name in dir.
func Digest(dir, name string) (string, error) {
	found, err := descriptors(dir)
	if err != nil {
		return "", err
	}
	for _, d := range found {
		if d.Annotations[refName] == name {
			return d.Digest.String(), nil
		}
	}
	return "", fmt.Errorf("no image %s in %s", name, dir)
}

func descriptors(dir string) ([]v1.Descriptor, error) {
	var all []v1.Descriptor
	for _, set := range imageSets {
		index, err := layout.ImageIndexFromPath(filepath.Join(dir, set))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		manifest, err := index.IndexManifest()
		if err != nil {
			return nil, err
		}
		all = append(all, manifest.Manifests...)
	}
	return all, nil
}

// load adds the manifests of a layout to the registry. The blobs are read from the layout.
func load(h http.Handler, path layout.Path) error {
	index, err := path.ImageIndex()
	if err != nil {
		return err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	for _, d := range manifest.Manifests {
		name := d.Annotations[refName]
		colon := strings.LastIndex(name, ":")
		if colon < 0 {
			return fmt.Errorf("image name %q has no tag", name)
		}
		if err := put(h, path, name[:colon], name[colon+1:], d); err != nil {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	return nil
}

// put adds a manifest. If it is an index, put first adds the manifests that it lists.
func put(h http.Handler, path layout.Path, repo, ref string, d v1.Descriptor) error {
	raw, err := path.Bytes(d.Digest)
	if err != nil {
		return err
	}
	if d.MediaType.IsIndex() {
		index, err := v1.ParseIndexManifest(bytes.NewReader(raw))
		if err != nil {
			return err
		}
		for _, m := range index.Manifests {
			if err := put(h, path, repo, m.Digest.String(), m); err != nil {
				return err
			}
		}
	}
	req := httptest.NewRequest(http.MethodPut, "/v2/"+repo+"/manifests/"+ref, bytes.NewReader(raw))
	req.Header.Set("Content-Type", string(d.MediaType))
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, req)
	if answer.Code != http.StatusCreated {
		return fmt.Errorf("%s: %s", answer.Result().Status, answer.Body)
	}
	return nil
}

// blobs serves the blobs of image layouts from their files. The embedded handler stores pushed blobs.
type blobs struct {
	dirs    []string
	Handler registry.BlobHandler
}

func (b *blobs) path(h v1.Hash) (string, os.FileInfo) {
	for _, dir := range b.dirs {
		path := filepath.Join(dir, h.Algorithm, h.Hex)
		if info, err := os.Stat(path); err == nil {
			return path, info
		}
	}
	return "", nil
}

// Stat implements registry.BlobStatHandler.
func (b *blobs) Stat(ctx context.Context, repo string, h v1.Hash) (int64, error) {
	if _, info := b.path(h); info != nil {
		return info.Size(), nil
	}
	return b.Handler.(registry.BlobStatHandler).Stat(ctx, repo, h)
}

// Get implements registry.BlobHandler.
func (b *blobs) Get(ctx context.Context, repo string, h v1.Hash) (io.ReadCloser, error) {
	if path, info := b.path(h); info != nil {
		return os.Open(path)
	}
	return b.Handler.Get(ctx, repo, h)
}

// Put implements registry.BlobPutHandler.
func (b *blobs) Put(ctx context.Context, repo string, h v1.Hash, rc io.ReadCloser) error {
	return b.Handler.(registry.BlobPutHandler).Put(ctx, repo, h, rc)
}

package images

import (
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// artifact is an image or an index.
type artifact = mutate.Appendable

// recipe builds one artifact, and has the references under which it is served.
type recipe struct {
	names []string
	make  func(*parts) (artifact, error)
}

const (
	e2e          = "registry.k8s.io/e2e-test-images/"
	staging      = "gcr.io/k8s-staging-cri-tools/"
	testRegistry = "registry.test/"
)

// catalog returns the recipes of all images except the heavy one.
func catalog() []recipe {
	c := []recipe{
		{[]string{e2e + "busybox:1.29-2", "docker.io/library/busybox:latest"}, busybox("", v1.Config{})},
		{[]string{e2e + "nginx:1.14-2", "docker.io/library/nginx:latest"}, nginx(80)},
		{[]string{staging + "hostnet-nginx-" + arch + ":latest"}, nginx(12003)},
		{[]string{e2e + "httpd:2.4.39-4"}, httpd},
		{[]string{e2e + "nonewprivs:1.3"}, nonewprivs},
		{[]string{"registry.k8s.io/pause:3.9", "k8s.gcr.io/pause:3.9"}, pause},

		{[]string{staging + "test-image-1:latest"}, busybox("test-image-1", v1.Config{})},
		{[]string{staging + "test-image-2:latest"}, busybox("test-image-2", v1.Config{})},
		{[]string{staging + "test-image-3:latest"}, busybox("test-image-3", v1.Config{})},
		{[]string{staging + "test-image-latest:latest"}, busybox("test-image-latest", v1.Config{})},
		{[]string{staging + "test-image-digest:latest"}, busybox("test-image-digest", v1.Config{})},
		{[]string{staging + "test-image-tag:test"}, busybox("test", v1.Config{})},
		{[]string{staging + "test-image-tag:all"}, busybox("all", v1.Config{})},
		{
			[]string{staging + "test-image-tags:1", staging + "test-image-tags:2", staging + "test-image-tags:3"},
			busybox("same-image", v1.Config{}),
		},

		{[]string{staging + "test-image-user-uid:latest"}, busybox("", v1.Config{User: "1002"})},
		{[]string{staging + "test-image-user-username:latest"}, busybox("", v1.Config{User: "www-data"})},
		{[]string{staging + "test-image-user-uid-group:latest"}, busybox("", v1.Config{User: "1003:1004"})},
		{[]string{staging + "test-image-user-username-group:latest"}, busybox("", v1.Config{User: "www-data:1004"})},
		{[]string{staging + "test-image-predefined-group:latest"}, predefinedGroup},
	}
	return append(c, featureCatalog()...)
}

// assemble builds an OCI image from layers. The modification time of every file is the epoch.
func assemble(cfg v1.Config, layers ...v1.Layer) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	adds := make([]mutate.Addendum, 0, len(layers))
	for i, l := range layers {
		adds = append(adds, mutate.Addendum{
			Layer:     l,
			MediaType: types.OCILayer,
			History:   v1.History{CreatedBy: fmt.Sprintf("layer %d", i+1)},
		})
	}
	img, err := mutate.Append(img, adds...)
	if err != nil {
		return nil, err
	}
	return configured(img, cfg)
}

func configured(img v1.Image, cfg v1.Config) (v1.Image, error) {
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", arch
	file.Config = cfg
	if file.Config.Env == nil {
		file.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	}
	return mutate.ConfigFile(img, file)
}

// busybox builds the busybox image with its tools. If a name is given, the root has an empty file with that name.
func busybox(file string, cfg v1.Config) func(*parts) (artifact, error) {
	return func(p *parts) (artifact, error) {
		if cfg.Cmd == nil && cfg.Entrypoint == nil {
			cfg.Cmd = []string{"sh"}
		}
		layers := []v1.Layer{p.busybox, p.tools}
		if file != "" {
			l, err := newTree().text(file, "").layer()
			if err != nil {
				return nil, err
			}
			layers = append(layers, l)
		}
		return assemble(cfg, layers...)
	}
}

func nginx(port int) func(*parts) (artifact, error) {
	return func(p *parts) (artifact, error) {
		site, err := nginxSite(port)
		if err != nil {
			return nil, err
		}
		cfg := v1.Config{
			Cmd:          []string{"nginx", "-g", "daemon off;"},
			ExposedPorts: map[string]struct{}{fmt.Sprintf("%d/tcp", port): {}},
			StopSignal:   "SIGQUIT",
		}
		return assemble(cfg, p.busybox, p.nginx, site)
	}
}

func httpd(p *parts) (artifact, error) {
	l, err := newTree().file("usr/bin/httpd", 0o755, p.guest).layer()
	if err != nil {
		return nil, err
	}
	return assemble(v1.Config{Cmd: []string{"httpd"}, ExposedPorts: map[string]struct{}{"80/tcp": {}}}, p.busybox, l)
}

func nonewprivs(p *parts) (artifact, error) {
	l, err := newTree().file("nonewprivs", 0o4755, p.guest).layer()
	if err != nil {
		return nil, err
	}
	return assemble(v1.Config{Entrypoint: []string{"/nonewprivs"}}, p.busybox, l)
}

func pause(p *parts) (artifact, error) {
	l, err := newTree().file("pause", 0o755, p.pause).layer()
	if err != nil {
		return nil, err
	}
	return assemble(v1.Config{Entrypoint: []string{"/pause"}, User: "65535:65535"}, l)
}

// predefinedGroup builds an image whose /etc/group makes a user a member of a group.
func predefinedGroup(p *parts) (artifact, error) {
	l, err := newTree().
		text("etc/passwd", passwd+"default-user:x:1000:1000::/home/default-user:/bin/sh\n").
		text("etc/group", group+"default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n").
		dir("home/default-user", 0o755).
		layer()
	if err != nil {
		return nil, err
	}
	return assemble(v1.Config{Cmd: []string{"sh"}, User: "1000"}, p.busybox, p.tools, l)
}

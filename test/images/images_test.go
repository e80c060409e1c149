package images

import (
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// registryOf builds the images once for all tests, and serves them.
func registryOf(t *testing.T) (addr string) {
	t.Helper()
	dir := filepath.Join("..", "..", ".cache", "images")
	if err := Build(t.Context(), dir, false); err != nil {
		t.Fatal(err)
	}
	h, err := Handler(dir)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func reference(t *testing.T, addr, image string) name.Reference {
	t.Helper()
	ref, err := name.ParseReference(addr+"/"+image, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func pull(t *testing.T, addr, image string) v1.Image {
	t.Helper()
	img, err := remote.Image(reference(t, addr, image))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestImagesAreValid(t *testing.T) {
	addr := registryOf(t)
	for _, r := range catalog() {
		for _, image := range r.names {
			t.Run(image, func(t *testing.T) {
				d, err := remote.Get(reference(t, addr, image))
				if err != nil {
					t.Fatal(err)
				}
				if d.MediaType.IsIndex() {
					index, err := d.ImageIndex()
					if err != nil {
						t.Fatal(err)
					}
					if err := validate.Index(index); err != nil {
						t.Error(err)
					}
					return
				}
				var opts []validate.Option
				if strings.Contains(image, "zstd") {
					opts = append(opts, validate.Fast) // the validator supports only gzip
				}
				if err := validate.Image(pull(t, addr, image), opts...); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestMediaTypes(t *testing.T) {
	addr := registryOf(t)
	tests := []struct {
		image    string
		manifest types.MediaType
		lastOf   types.MediaType
	}{
		{"registry.test/docker:1", types.DockerManifestSchema2, types.DockerLayer},
		{"registry.test/zstd:1", types.OCIManifestSchema1, types.OCILayerZStd},
		{"registry.test/whiteouts:1", types.OCIManifestSchema1, types.OCILayer},
	}
	for _, tt := range tests {
		t.Run(tt.image, func(t *testing.T) {
			m, err := pull(t, addr, tt.image).Manifest()
			if err != nil {
				t.Fatal(err)
			}
			if m.MediaType != tt.manifest {
				t.Errorf("media type of the manifest: got %s, want %s", m.MediaType, tt.manifest)
			}
			if got := m.Layers[len(m.Layers)-1].MediaType; got != tt.lastOf {
				t.Errorf("media type of the last layer: got %s, want %s", got, tt.lastOf)
			}
		})
	}
}

func TestNamesOfOneImage(t *testing.T) {
	addr := registryOf(t)
	for _, names := range [][]string{
		{"registry.k8s.io/pause:3.9", "k8s.gcr.io/pause:3.9"},
		{staging + "test-image-tags:1", staging + "test-image-tags:2", staging + "test-image-tags:3"},
	} {
		want, err := pull(t, addr, names[0]).Digest()
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names[1:] {
			if got, err := pull(t, addr, n).Digest(); err != nil || got != want {
				t.Errorf("digest of %s: got %v (error %v), want %v like %s", n, got, err, want, names[0])
			}
		}
	}
}

// TestPrograms runs the programs that the CRI validation suite runs in containers of these images, with chroot.
func TestPrograms(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("chroot needs root")
	}
	addr := registryOf(t)
	tests := []struct {
		image string
		uid   uint32
		args  []string
		want  string
	}{
		{e2e + "busybox:1.29-2", 0, []string{"/bin/sh", "-c", "echo $(id -u):$(id -g)"}, "0:0"},
		{e2e + "busybox:1.29-2", 1002, []string{"/bin/sh", "-c", "id -u; touch /root/x 2>&1"}, "Permission denied"},
		{e2e + "busybox:1.29-2", 0, []string{"/bin/sh", "-c", "stat -c %h /bin/ls | grep -v '^1$' >/dev/null && echo hard links"}, "hard links"},
		{e2e + "busybox:1.29-2", 0, []string{"/bin/sh", "-c", "for t in brctl ipcs pgrep nslookup nc; do command -v $t || exit; done; echo all"}, "all"},
		{e2e + "busybox:1.29-2", 0, []string{"/bin/sh", "-c", "mv /bin/ls /bin/gone; >/bin/ls; ls 2>&1; mv /bin/gone /bin/ls"}, "/bin/sh: ls: Permission denied\n"},
		{e2e + "nginx:1.14-2", 0, []string{"/usr/sbin/nginx", "-V"}, "nginx version"},
		{e2e + "nonewprivs:1.3", 1000, []string{"/nonewprivs"}, "Effective uid: 0\n"},
		{staging + "test-image-predefined-group:latest", 0, []string{"/bin/id", "default-user"}, "50000(group-defined-in-image)"},
	}
	roots := map[string]string{}
	for _, tt := range tests {
		if roots[tt.image] == "" {
			roots[tt.image] = unpack(t, pull(t, addr, tt.image))
		}
		t.Run(fmt.Sprint(tt.image, tt.args), func(t *testing.T) {
			cmd := exec.Command(tt.args[0], tt.args[1:]...)
			cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Chroot:     roots[tt.image],
				Credential: &syscall.Credential{Uid: tt.uid, Gid: tt.uid, NoSetGroups: true},
			}
			out, _ := cmd.CombinedOutput()
			if !strings.Contains(string(out), tt.want) {
				t.Errorf("%v: got output %q, want it to contain %q", tt.args, out, tt.want)
			}
		})
	}
}

func unpack(t *testing.T, img v1.Image) string {
	t.Helper()
	root, err := os.MkdirTemp("", "testimage")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	content := mutate.Extract(img)
	defer content.Close()
	cmd := exec.Command("tar", "-xp", "-C", root)
	cmd.Stdin = content
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("unpack: %v\n%s", err, out)
	}
	return root
}

func TestHeavyLayerCompressesLikeMachineCode(t *testing.T) {
	layer := heavyLayer(0)
	defer layer.Close()
	sample, err := io.ReadAll(io.LimitReader(layer, 4<<20))
	if err != nil {
		t.Fatal(err)
	}
	l, err := newTree().file("sample", 0o644, sample).layer()
	if err != nil {
		t.Fatal(err)
	}
	size, err := l.Size()
	if err != nil {
		t.Fatal(err)
	}
	if ratio := float64(size) / float64(len(sample)); ratio < 0.3 || ratio > 0.8 {
		t.Errorf("the layer compresses to %.0f %% of its size, unlike machine code", ratio*100)
	}
}

func TestRegistriesConf(t *testing.T) {
	conf := RegistriesConf("127.0.0.1:5000", "gcr.io")
	for _, want := range []string{"prefix = \"gcr.io\"\nlocation = \"127.0.0.1:5000/gcr.io\"\ninsecure = true", "location = \"127.0.0.1:5000\""} {
		if !strings.Contains(conf, want) {
			t.Errorf("no %q in\n%s", want, conf)
		}
	}
}

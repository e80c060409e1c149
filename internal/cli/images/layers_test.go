package images

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cli/clitest"
	"github.com/criserver/criserver/internal/cli/command"
)

func TestImageLayersTable(t *testing.T) {
	r := &adminv1.ImageLayers{
		Id: "sha256:0123456789abcdef", Tags: []string{"registry.example/app:1"}, Size: 3 << 20, Containers: []string{"c1"},
		Config: &adminv1.ImageConfig{
			Entrypoint: []string{"/app", "-x y"}, User: "1000", EnvCount: 3, Ports: []string{"80/tcp", "443/tcp"}, Platform: "linux/amd64",
			Labels: map[string]string{"b": "2", "a": "1"},
		},
		Steps: []*adminv1.ImageStep{
			{Command: "ADD rootfs.tar /", Layer: &adminv1.ImageLayer{
				DiffId: "sha256:aaaaaaaaaaaaaaaaaaaa", Digest: "sha256:bbbbbbbbbbbbbbbbbbbb", CompressedSize: 1 << 20, Size: 3 << 20,
				Age: durationpb.New(50 * time.Hour), Containers: []string{"c1", "c2"}, SharedWith: []string{"registry.example/base:1"},
			}},
			{Command: "ENV  A=1\n\tB=2"},
			{Layer: &adminv1.ImageLayer{DiffId: "sha256:cccccccccccccccccccc", Age: durationpb.New(90 * time.Second)}},
		},
	}
	want := `image sha256:0123456789abcdef
name registry.example/app:1
size 3.00 MiB
platform linux/amd64
entrypoint "/app" "-x y"
user 1000
ports 80/tcp 443/tcp
containers c1
environment variables 3
label a=1
label b=2

LAYER  DIFF ID        DIGEST         SIZE      COMPRESSED  AGE  CONTAINERS  SHARED WITH              CREATED BY
0      aaaaaaaaaaaaa  bbbbbbbbbbbbb  3.00 MiB  1.00 MiB    2d   2           registry.example/base:1  ADD rootfs.tar /
-      -              -              -         -           -    -           -                        ENV A=1 B=2
1      ccccccccccccc  -              0 B       -           90s  0           -                        -
`
	if got := clitest.Table(t, func(tab *command.Table) { writeImageLayers(tab, r) }); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestContainerLayersTable(t *testing.T) {
	r := &adminv1.ContainerLayers{
		Id: "0123456789abcdef", Name: "web", PodName: "pod", PodNamespace: "default", Image: "sha256:01",
		Mount: &adminv1.OverlayMount{
			Target: "/run/x/rootfs", Mounted: true, Upper: "/u", Work: "/w", Options: []string{"rw", "volatile"}, Idmapped: true,
			Lower: []*adminv1.LowerDirectory{{Path: "/c"}, {Path: "/l", DiffId: "sha256:aaaaaaaaaaaaaaaaaaaa"}},
		},
		Changes: []*adminv1.LayerChange{
			{Kind: adminv1.ChangeKind_CHANGE_KIND_ADDED, Path: "/a b", Type: "file", Size: 2048},
			{Kind: adminv1.ChangeKind_CHANGE_KIND_CHANGED, Path: "/bin/su", Type: "file", MetadataOnly: true, HardLink: true},
			{Kind: adminv1.ChangeKind_CHANGE_KIND_REMOVED, Path: "/cache", Type: "directory", Opaque: true},
			{Kind: adminv1.ChangeKind_CHANGE_KIND_ADDED, Path: "/lib", Type: "directory", RenamedFrom: "/var/lib"},
		},
		Summary: &adminv1.ChangeSummary{
			Added: &adminv1.ChangeTotal{Count: 5000, Bytes: 1 << 20}, Changed: &adminv1.ChangeTotal{Count: 1}, Removed: &adminv1.ChangeTotal{Count: 1},
			Truncated: true, Skipped: 2, Incomplete: true,
		},
	}
	want := `container web of pod default/pod (0123456789abc)
image sha256:01
mount point /run/x/rootfs
lower /c (cover)
lower /l (aaaaaaaaaaaaa)
upper /u
work /w
options rw,volatile,idmapped

CHANGE  TYPE       SIZE      PATH     NOTE
A       file       2.00 KiB  /a b     -
C       file       0 B       /bin/su  metadata only, hard link
R       directory  -         /cache   made again, the content in the image is removed
A       directory  -         /lib     renamed from /var/lib

added: 5000 with 1.00 MiB
changed: 1 with 0 B
removed: 1 with 0 B
only the first 4 changes are shown; --all shows all
the comparison took too long, so changes are missing
2 files could not be read
`
	if got := clitest.Table(t, func(tab *command.Table) { writeContainerLayers(tab, r) }); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

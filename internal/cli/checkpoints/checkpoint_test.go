package checkpoints

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/checkpoint/archive"
	"github.com/criserver/criserver/checkpoint/inspect"
	"github.com/criserver/criserver/internal/cli/clitest"
	"github.com/criserver/criserver/internal/cli/command"
)

func TestSelectTarget(t *testing.T) {
	pods := []*cri.PodSandbox{
		{Id: "aa1", Metadata: &cri.PodSandboxMetadata{Name: "web", Namespace: "default"}},
		{Id: "aa0", Metadata: &cri.PodSandboxMetadata{Name: "web", Namespace: "default"}, State: cri.PodSandboxState_SANDBOX_NOTREADY},
	}
	containers := []*cri.Container{
		{Id: "c1", PodSandboxId: "aa1", Metadata: &cri.ContainerMetadata{Name: "nginx"}, State: cri.ContainerState_CONTAINER_RUNNING},
		{Id: "c2", PodSandboxId: "aa1", Metadata: &cri.ContainerMetadata{Name: "nginx"}, State: cri.ContainerState_CONTAINER_EXITED},
		{Id: "c3", PodSandboxId: "removed", Metadata: &cri.ContainerMetadata{Name: "x"}},
	}
	for reference, want := range map[string]string{
		"aa1": "aa1", "aa0": "aa0", "default/web": "aa1", "c1": "c1", "c2": "c2", "default/web/nginx": "c1",
		"aa": "", "c": "", "c3": "", "": "", "default/other": "", "default": "",
	} {
		got := ""
		target, err := selectTarget(pods, containers, reference)
		switch {
		case err != nil:
		case target.container != nil:
			got = target.container.GetId()
		default:
			got = target.pod.GetId()
		}
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", reference, got, err, want)
		}
	}
	target, err := selectTarget(pods, containers, "c1")
	if err != nil {
		t.Fatal(err)
	}
	if got := target.fileName(time.Unix(0, 0)); got != "checkpoint-web_default-nginx-19700101T000000Z.tar" {
		t.Errorf("file name: got %s", got)
	}
}

// TestArchiveSize checks that only the files of the new checkpoint count.
func TestArchiveSize(t *testing.T) {
	dir := t.TempDir()
	write := func(work, name string, size int) {
		t.Helper()
		path := filepath.Join(dir, work, "01", "images")
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(checkpointWork+"old", "a", 100)
	size := newArchiveSize(filepath.Join(dir, "a.tar"))
	if got := size(); got != 0 {
		t.Errorf("before the checkpoint: got %d", got)
	}
	write(checkpointWork+"new", "a", 10)
	write(checkpointWork+"new", "b", 5)
	if got := size(); got != 15 {
		t.Errorf("got %d, want 15", got)
	}
}

func TestCheckpointTable(t *testing.T) {
	authentic := false
	c := &inspect.Checkpoint{
		Kind: inspect.KindPod, Path: "/c", Size: 2048, Authentic: &authentic,
		Origin: archive.Origin{
			Version: 1, Engine: "criserver 1", Architecture: "amd64", Kernel: "6.1", CgroupV2: true, CRIU: "4.2",
			CheckpointedAt: time.Unix(1e9, 0), Runtime: archive.Runtime{Handler: "runc", Version: "1.4"},
		},
		Pod: inspect.Pod{PodName: archive.PodName{ID: "0123456789abcdef", Name: "web", Namespace: "default", UID: "u"}},
		Containers: []inspect.Container{
			{
				Name: "a\x1b[31m\nb", ID: "c", ImageRef: "r.example/a:1", ImageID: "sha256:0123456789abcdef", Args: []string{strings.Repeat("x", 600)},
				File:  inspect.File{Path: "containers/01-a.tar", Size: 1024, Digest: inspect.DigestVerified},
				Parts: []inspect.Part{{Name: "memory", Files: 2, Size: 1024}}, DeletedFiles: 3,
			},
			{Name: "b", File: inspect.File{Path: "containers/02-b.tar", Digest: inspect.DigestUnknown, Error: "no such file"}},
		},
		Files:        []inspect.File{{Path: "shm.tar", Size: 10, Digest: inspect.DigestVerified}},
		NotContained: []string{"the image r.example/a:1"},
	}
	want := `checkpoint of a pod, 2.00 KiB, /c
version 1, written by criserver 1 at 2001-09-09T01:46:40Z
pod default/web (0123456789abc), uid u
node amd64, kernel 6.1, cgroup v2
runtime handler runc (1.4), criu 4.2
message authentication code: DIFFERS

container a?[31m?b (c), attempt 0
image r.example/a:1 (0123456789abc)
command ` + strings.Repeat("x", maxText) + `...
archive containers/01-a.tar, 1.00 KiB, digest verified
PART    SIZE      FILES
memory  1.00 KiB  2
3 files of the image are deleted

container b (-), attempt 0
image - (-)
archive containers/02-b.tar, 0 B, digest unknown
error: no such file

FILE OF THE POD  SIZE  DIGEST    ERROR
shm.tar          10 B  verified  -

not contained:
  the image r.example/a:1
`
	if got := clitest.Table(t, func(tab *command.Table) { writeCheckpoint(tab, c) }); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

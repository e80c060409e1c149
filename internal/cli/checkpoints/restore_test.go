package checkpoints

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/checkpoint/archive"
	"github.com/criserver/criserver/internal/cli/clitest"
	"github.com/criserver/criserver/internal/cli/command"
)

// runCommand runs a command of this package, and returns its exit code and its output.
func runCommand(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return clitest.Run(t, Commands, strings.NewReader(""), args...)
}

// restoreServer is a runtime service that records the requests of the command restore.
type restoreServer struct {
	cri.UnimplementedRuntimeServiceServer
	calls     []string
	pod       *cri.RestorePodRequest
	container *cri.CreateContainerRequest
	present   []*cri.Container
	startErr  error // of the last container
	createErr error
}

func (s *restoreServer) RestorePod(ctx context.Context, r *cri.RestorePodRequest) (*cri.RestorePodResponse, error) {
	if _, ok := ctx.Deadline(); !ok {
		return nil, errors.New("no deadline")
	}
	s.calls, s.pod = append(s.calls, "restore pod"), r
	resp := &cri.RestorePodResponse{PodSandboxId: "0123456789abcdef"}
	for _, c := range r.GetContainerConfigs() {
		name := c.GetMetadata().GetName()
		resp.RestoredContainers = append(resp.RestoredContainers, &cri.RestoredContainer{Name: name, ContainerId: "id-" + name})
	}
	return resp, nil
}

func (s *restoreServer) ListPodSandbox(context.Context, *cri.ListPodSandboxRequest) (*cri.ListPodSandboxResponse, error) {
	return &cri.ListPodSandboxResponse{Items: []*cri.PodSandbox{{Id: "aa1", Metadata: &cri.PodSandboxMetadata{Name: "web", Namespace: "ns", Uid: "u"}}}}, nil
}

func (s *restoreServer) ListContainers(context.Context, *cri.ListContainersRequest) (*cri.ListContainersResponse, error) {
	return &cri.ListContainersResponse{Containers: s.present}, nil
}

func (s *restoreServer) CreateContainer(_ context.Context, r *cri.CreateContainerRequest) (*cri.CreateContainerResponse, error) {
	s.calls, s.container = append(s.calls, "create "+r.GetConfig().GetMetadata().GetName()), r
	return &cri.CreateContainerResponse{ContainerId: "id-new"}, s.createErr
}

func (s *restoreServer) StartContainer(_ context.Context, r *cri.StartContainerRequest) (*cri.StartContainerResponse, error) {
	s.calls = append(s.calls, "start "+r.GetContainerId())
	if r.GetContainerId() == "id-a" {
		return &cri.StartContainerResponse{}, nil
	}
	return &cri.StartContainerResponse{}, s.startErr
}

func (s *restoreServer) StopPodSandbox(_ context.Context, r *cri.StopPodSandboxRequest) (*cri.StopPodSandboxResponse, error) {
	s.calls = append(s.calls, "stop pod "+command.ShortID(r.GetPodSandboxId()))
	return &cri.StopPodSandboxResponse{}, nil
}

func (s *restoreServer) RemovePodSandbox(_ context.Context, r *cri.RemovePodSandboxRequest) (*cri.RemovePodSandboxResponse, error) {
	s.calls = append(s.calls, "remove pod "+command.ShortID(r.GetPodSandboxId()))
	return &cri.RemovePodSandboxResponse{}, nil
}

func (s *restoreServer) RemoveContainer(_ context.Context, r *cri.RemoveContainerRequest) (*cri.RemoveContainerResponse, error) {
	s.calls = append(s.calls, "remove "+r.GetContainerId())
	return &cri.RemoveContainerResponse{}, nil
}

// command runs the command restore against the server, in a configuration whose root directory has the key.
func (s *restoreServer) command(t *testing.T, b *restoreBed, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	cri.RegisterRuntimeServiceServer(g, s)
	go func() { _ = g.Serve(l) }()
	defer g.Stop()
	return runCommand(t, append([]string{"restore", "--socket", socket, "--config", b.config}, args...)...)
}

// restoreBed has a pod checkpoint and an archive that the key in root signs.
type restoreBed struct{ root, config, dir, archive string }

func newRestoreBed(t *testing.T) *restoreBed {
	t.Helper()
	b := &restoreBed{root: t.TempDir(), dir: t.TempDir()}
	b.config, b.archive = filepath.Join(b.root, "c.toml"), filepath.Join(b.root, "a.tar")
	key, err := archive.MakeKey(filepath.Join(b.root, archive.KeyFile))
	if err := errors.Join(err, os.WriteFile(b.config, []byte("root = \""+b.root+"\"\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	raw := func(m proto.Message) []byte {
		b, err := protojson.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	m := &archive.Manifest{
		Origin: archive.Origin{Version: archive.Version, Architecture: runtime.GOARCH, Runtime: archive.Runtime{Handler: "runc"}},
		Pod:    archive.Pod{Config: raw(&cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: "web", Namespace: "ns", Uid: "u"}})},
	}
	for i, name := range []string{"a", "b"} {
		m.Containers = append(m.Containers, archive.ManifestContainer{
			Name: name, ImageID: "sha256:1", Config: raw(&cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: name}}),
			File: archive.File{Path: archive.ContainerPath(i, name), SHA256: strings.Repeat("0", 64)},
		})
	}
	signErr := m.Sign(key)
	manifest, err := json.Marshal(m)
	f, createErr := os.Create(b.archive)
	if err := errors.Join(signErr, err, createErr, os.WriteFile(filepath.Join(b.dir, archive.ManifestFile), manifest, 0o600)); err != nil {
		t.Fatal(err)
	}
	w := archive.NewWriter(t.Context(), f, time.Now(), key)
	err = w.JSON(archive.InfoFile, archive.ContainerInfo{
		Origin: m.Origin, Container: archive.Container{Name: "a", Config: raw(&cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "a"}})},
	})
	_, closeErr := w.Close()
	if err := errors.Join(err, closeErr, f.Close()); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRestorePodCommand(t *testing.T) {
	b := newRestoreBed(t)
	s := &restoreServer{}
	code, stdout, stderr := s.command(t, b, b.dir)
	want := `KIND       ID             NAME    STATE
pod        0123456789abc  ns/web  ready
container  id-a           a       running
container  id-b           b       running
`
	if code != command.ExitSuccess || stdout != want || stderr != "" {
		t.Errorf("exit code %d, %s, got\n%s\nwant\n%s", code, stderr, stdout, want)
	}
	if want := []string{"restore pod", "start id-a", "start id-b"}; !slices.Equal(s.calls, want) || s.pod.GetCheckpointPath() != b.dir || s.pod.GetRuntimeHandler() != "runc" {
		t.Errorf("calls %q, request %v", s.calls, s.pod)
	}

	s = &restoreServer{}
	code, stdout, stderr = s.command(t, b, b.dir, "--name", "copy", "--no-start", "-o", "json")
	var r restored
	if err := json.Unmarshal([]byte(stdout), &r); code != command.ExitSuccess || err != nil || r.Pod != "copy" || r.PodSandboxID != "0123456789abcdef" ||
		len(r.Containers) != 2 || r.Containers[1] != (restoredContainer{"id-b", "b", "created"}) {
		t.Errorf("exit code %d, %v, %s%s", code, err, stdout, stderr)
	}
	if !slices.Equal(s.calls, []string{"restore pod"}) || s.pod.GetConfig().GetMetadata().GetUid() == "u" {
		t.Errorf("calls %q, request %v", s.calls, s.pod)
	}

	pod, container := filepath.Join(b.root, "pod.yaml"), filepath.Join(b.root, "container.json")
	if err := errors.Join(os.WriteFile(pod, []byte("metadata: {name: given}\n"), 0o600),
		os.WriteFile(container, []byte(`{"metadata": {"name": "b"}, "working_dir": "/given"}`), 0o600)); err != nil {
		t.Fatal(err)
	}
	code, _, stderr = s.command(t, b, b.dir, "--pod-config", pod, "--container-config", container)
	if code != command.ExitSuccess || s.pod.GetConfig().GetMetadata().GetName() != "given" || s.pod.GetContainerConfigs()[1].GetWorkingDir() != "/given" {
		t.Errorf("exit code %d, %s, request %v", code, stderr, s.pod)
	}
}

// TestRestoreUndo checks that the command removes what it has restored if a start fails.
func TestRestoreUndo(t *testing.T) {
	b := newRestoreBed(t)
	s := &restoreServer{startErr: status.Error(codes.Unknown, "criu has failed")}
	code, stdout, stderr := s.command(t, b, b.dir)
	want := []string{"restore pod", "start id-a", "start id-b", "stop pod 0123456789abc", "remove pod 0123456789abc"}
	if code != command.ExitFailure || stdout != "" || stderr != "criserver: start container \"b\": criu has failed\n" || !slices.Equal(s.calls, want) {
		t.Errorf("pod: exit code %d, %s%s, calls %q", code, stdout, stderr, s.calls)
	}
	s.calls = nil
	code, _, stderr = s.command(t, b, b.archive, "--pod", "ns/web")
	if want := []string{"create a", "start id-new", "remove id-new"}; code != command.ExitFailure || !strings.Contains(stderr, "criu has failed") || !slices.Equal(s.calls, want) {
		t.Errorf("container: exit code %d, %s, calls %q", code, stderr, s.calls)
	}
}

func TestRestoreContainerCommand(t *testing.T) {
	b := newRestoreBed(t)
	s := &restoreServer{present: []*cri.Container{
		{Id: "c1", PodSandboxId: "aa1", Metadata: &cri.ContainerMetadata{Name: "a", Attempt: 1}, State: cri.ContainerState_CONTAINER_EXITED},
	}}
	code, stdout, stderr := s.command(t, b, b.archive, "--pod", "aa")
	if code != command.ExitSuccess || !strings.Contains(stdout, "container  id-new  a       running\n") {
		t.Errorf("exit code %d, %s%s", code, stdout, stderr)
	}
	if r := s.container; r.GetPodSandboxId() != "aa1" || r.GetConfig().GetImage().GetImage() != b.archive || r.GetConfig().GetMetadata().GetAttempt() != 2 ||
		r.GetSandboxConfig().GetMetadata().GetUid() != "u" {
		t.Errorf("request %v", r)
	}
	s.present[0].State = cri.ContainerState_CONTAINER_RUNNING
	if code, _, stderr := s.command(t, b, b.archive, "--pod", "aa"); code != command.ExitFailure || !strings.Contains(stderr, "--name") {
		t.Errorf("the name is in use: exit code %d, %s", code, stderr)
	}
	if code, _, stderr := s.command(t, b, b.archive, "--pod", "aa", "--name", "copy"); code != command.ExitSuccess || s.container.GetConfig().GetMetadata().GetName() != "copy" {
		t.Errorf("another name: exit code %d, %s", code, stderr)
	}
	s.createErr = status.Error(codes.FailedPrecondition, "checkpoint.restore_from_archives is false")
	if code, _, stderr := s.command(t, b, b.archive, "--pod", "aa", "--name", "copy"); code != command.ExitFailure || !strings.Contains(stderr, "restore_from_archives") {
		t.Errorf("not allowed: exit code %d, %s", code, stderr)
	}
}

func TestRestoreRefused(t *testing.T) {
	b := newRestoreBed(t)
	other := filepath.Join(b.root, "other-key")
	if _, err := archive.MakeKey(other); err != nil {
		t.Fatal(err)
	}
	s := &restoreServer{}
	for _, tc := range []struct {
		code int
		says string
		args []string
	}{
		{command.ExitUsage, "arg", nil},
		{command.ExitUsage, "--pod must be given", []string{b.archive}},
		{command.ExitUsage, "--pod: only for", []string{b.dir, "--pod", "ns/web"}},
		{command.ExitUsage, "--uid", []string{b.archive, "--pod", "ns/web", "--uid", "u"}},
		{command.ExitUsage, "--container-config", []string{b.archive, "--pod", "ns/web", "--container-config", "a", "--container-config", "b"}},
		{command.ExitUsage, "--timeout", []string{b.dir, "--timeout", "1ms"}},
		{command.ExitFailure, "no such file", []string{filepath.Join(b.dir, "none")}},
		{command.ExitFailure, "no such file", []string{b.dir, "--pod-config", "/none"}},
		{command.ExitFailure, "--container-config", []string{b.dir, "--container-config", "/none"}},
		{command.ExitFailure, "manifest.json", []string{b.root}},
		{command.ExitFailure, "authentication code is wrong", []string{b.dir, "--key", other}},
		{command.ExitFailure, "authentication code is wrong", []string{b.archive, "--pod", "ns/web", "--key", other}},
		{command.ExitFailure, "read the key", []string{b.dir, "--key", "/none"}},
		{command.ExitFailure, "no running container and no ready pod", []string{b.archive, "--pod", "ns/none"}},
	} {
		code, stdout, stderr := s.command(t, b, tc.args...)
		if code != tc.code || stdout != "" || !strings.Contains(stderr, tc.says) {
			t.Errorf("%q: exit code %d, want %d; got %s, want %q", tc.args, code, tc.code, stderr, tc.says)
		}
	}
	if len(s.calls) > 0 {
		t.Errorf("calls %q, want none", s.calls)
	}
}

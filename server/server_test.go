package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/image"
	"github.com/criserver/criserver/sandbox"
)

func TestErrorsGetTheCodeOfTheirClass(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want codes.Code
	}{
		{nil, codes.OK},
		{fmt.Errorf("pod %q: %w", "x", errdefs.ErrNotFound), codes.NotFound},
		{fmt.Errorf("name: %w", errdefs.ErrInvalidArgument), codes.InvalidArgument},
		{errors.Join(errors.New("first"), errdefs.ErrFailedPrecondition), codes.FailedPrecondition},
		{fmt.Errorf("exec: %w", context.DeadlineExceeded), codes.DeadlineExceeded},
		{fmt.Errorf("wait: %w", context.Canceled), codes.Canceled},
		{fmt.Errorf("%w: far away: %w", image.ErrRegistryUnavailable, errdefs.ErrUnavailable), codes.Unknown},
		{fmt.Errorf("%w: who signed this", image.ErrSignatureValidationFailed), codes.Unknown},
		{errors.New("anything"), codes.Unknown},
		{status.Error(codes.Aborted, "as it is"), codes.Aborted},
	} {
		if got := status.Code(grpcError(tc.err)); got != tc.want {
			t.Errorf("%v: code %s, want %s", tc.err, got, tc.want)
		}
	}
}

func TestLongMessagesKeepBeginningAndEnd(t *testing.T) {
	err := grpcError(fmt.Errorf("pod %q: %w", strings.Repeat("é", 1<<20), errdefs.ErrNotFound))
	msg := status.Convert(err).Message()
	if len(msg) > maxErrorText || !utf8.ValidString(msg) || !strings.HasPrefix(msg, `pod "é`) || !strings.HasSuffix(msg, `é": not found`) {
		t.Errorf("%d bytes: %.20q", len(msg), msg)
	}
	if code := status.Code(err); code != codes.NotFound {
		t.Errorf("code %s", code)
	}
}

func TestAPanicEndsOneCall(t *testing.T) {
	_, err := unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/runtime.v1.RuntimeService/Version"}, func(context.Context, any) (any, error) {
		panic("broken")
	})
	if status.Code(err) != codes.Internal {
		t.Errorf("got %v", err)
	}
}

// fakePods and the others answer from what a test puts in; the embedded nil
// interface panics on what the test does not expect.
type fakePods struct {
	Pods
	pods    []*sandbox.Pod
	err     error
	network error
}

func (f *fakePods) List() []*sandbox.Pod               { return f.pods }
func (f *fakePods) Stop(context.Context, string) error { return f.err }
func (f *fakePods) NetworkStatus() error               { return f.network }
func (f *fakePods) Remove(context.Context, string) error {
	return f.err
}

func (f *fakePods) Get(id string) (*sandbox.Pod, error) {
	for _, p := range f.pods {
		if p.ID == id {
			return p, nil
		}
	}
	return nil, errdefs.ErrNotFound
}

type fakeContainers struct {
	Containers
	list []*container.Snapshot
	err  error
}

func (f *fakeContainers) List() []*container.Snapshot                       { return f.list }
func (f *fakeContainers) Stop(context.Context, string, time.Duration) error { return f.err }
func (f *fakeContainers) Remove(context.Context, string) error              { return f.err }

type fakeImages struct {
	Images
	list  []image.Image
	pulls []image.PullProgress
	err   error
}

func (f *fakeImages) List() []image.Image                  { return f.list }
func (f *fakeImages) Pulls() []image.PullProgress          { return f.pulls }
func (f *fakeImages) Remove(context.Context, string) error { return f.err }
func (f *fakeImages) Pull(_ context.Context, req image.PullRequest) (image.Image, error) {
	return f.Get(req.Ref)
}

func (f *fakeImages) Repositories(ref string) []string {
	repo, _, _ := strings.Cut(ref, ":")
	if strings.Contains(repo, "/") {
		return []string{repo}
	}
	return []string{"search/" + repo, "docker.io/library/" + repo}
}

func (f *fakeImages) Get(ref string) (image.Image, error) {
	for _, i := range f.list {
		if i.ID.String() == ref {
			return i, nil
		}
	}
	return image.Image{}, fmt.Errorf("image %q: %w", ref, errdefs.ErrNotFound)
}

func TestWhatIsGoneIsStoppedAndRemoved(t *testing.T) {
	gone := fmt.Errorf("no such thing: %w", errdefs.ErrNotFound)
	s := New(Config{Pods: &fakePods{err: gone}, Containers: &fakeContainers{err: gone}, Images: &fakeImages{err: gone}})
	broken := errors.New("busy")
	b := New(Config{Pods: &fakePods{err: broken}, Containers: &fakeContainers{err: broken}, Images: &fakeImages{err: broken}})
	for name, call := range map[string]func(*Server) error{
		"StopPodSandbox": func(s *Server) error {
			_, err := s.StopPodSandbox(t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: "x"})
			return err
		},
		"RemovePodSandbox": func(s *Server) error {
			_, err := s.RemovePodSandbox(t.Context(), &cri.RemovePodSandboxRequest{PodSandboxId: "x"})
			return err
		},
		"StopContainer": func(s *Server) error {
			_, err := s.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: "x"})
			return err
		},
		"RemoveContainer": func(s *Server) error {
			_, err := s.RemoveContainer(t.Context(), &cri.RemoveContainerRequest{ContainerId: "x"})
			return err
		},
		"RemoveImage": func(s *Server) error {
			_, err := s.RemoveImage(t.Context(), &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: "x"}})
			return err
		},
	} {
		if err := call(s); err != nil {
			t.Errorf("%s of what is gone: %v", name, err)
		}
		if err := call(b); !errors.Is(err, broken) {
			t.Errorf("%s hides a failure: %v", name, err)
		}
	}
}

func TestRequestsWithoutTheirSubject(t *testing.T) {
	s := New(Config{})
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"pod_sandbox_id": func() error { _, err := s.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{}); return err },
		"config":         func() error { _, err := s.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{}); return err },
		"sandbox_config": func() error {
			_, err := s.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: "x", Config: &cri.ContainerConfig{}})
			return err
		},
		"container_id": func() error { _, err := s.ContainerStatus(ctx, &cri.ContainerStatusRequest{}); return err },
		"cmd":          func() error { _, err := s.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: "x"}); return err },
		"timeout": func() error {
			_, err := s.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: "x", Cmd: []string{"true"}, Timeout: -1})
			return err
		},
		"linux": func() error {
			_, err := s.UpdateContainerResources(ctx, &cri.UpdateContainerResourcesRequest{ContainerId: "x"})
			return err
		},
		"image.image": func() error { _, err := s.PullImage(ctx, &cri.PullImageRequest{}); return err },
	} {
		err := grpcError(call())
		if status.Code(err) != codes.InvalidArgument || !strings.HasPrefix(status.Convert(err).Message(), name+" must") {
			t.Errorf("got %v, want InvalidArgument about %s", err, name)
		}
	}
}

func TestFiltersAllHaveToHold(t *testing.T) {
	pod := func(id string, ready bool, app string) *sandbox.Pod {
		return &sandbox.Pod{ID: id, Ready: ready, Config: &cri.PodSandboxConfig{Labels: map[string]string{"app": app, "tier": "x"}}}
	}
	s := New(Config{Pods: &fakePods{pods: []*sandbox.Pod{pod("aa1", true, "web"), pod("aa2", false, "web"), pod("bb1", true, "db")}}})
	for name, tc := range map[string]struct {
		filter *cri.PodSandboxFilter
		want   []string
	}{
		"none":       {nil, []string{"aa1", "aa2", "bb1"}},
		"whole id":   {&cri.PodSandboxFilter{Id: "bb1"}, []string{"bb1"}},
		"short id":   {&cri.PodSandboxFilter{Id: "aa"}, []string{"aa1", "aa2"}},
		"unknown id": {&cri.PodSandboxFilter{Id: "cc"}, nil},
		"state":      {&cri.PodSandboxFilter{State: &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY}}, []string{"aa1", "bb1"}},
		"label":      {&cri.PodSandboxFilter{LabelSelector: map[string]string{"app": "web"}}, []string{"aa1", "aa2"}},
		"labels":     {&cri.PodSandboxFilter{LabelSelector: map[string]string{"app": "web", "tier": "y"}}, nil},
		"all of it": {&cri.PodSandboxFilter{
			Id: "aa", LabelSelector: map[string]string{"app": "web"}, State: &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_NOTREADY},
		}, []string{"aa2"}},
	} {
		r, err := s.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{Filter: tc.filter})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range r.GetItems() {
			got = append(got, p.GetId())
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}

func TestContainerStatesAndFilters(t *testing.T) {
	snapshot := func(id, pod string, st container.State) *container.Snapshot {
		return &container.Snapshot{ID: id, PodID: pod, State: st, Config: &cri.ContainerConfig{}}
	}
	s := New(Config{Images: &fakeImages{}, Containers: &fakeContainers{list: []*container.Snapshot{
		snapshot("a", "p1", container.Created), snapshot("b", "p1", container.Running), snapshot("c", "p2", container.Exited), snapshot("d", "p2", container.Unknown),
	}}})
	r, err := s.ListContainers(t.Context(), &cri.ListContainersRequest{Filter: &cri.ContainerFilter{PodSandboxId: "p2"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []cri.ContainerState
	for _, c := range r.GetContainers() {
		got = append(got, c.GetState())
	}
	if !slices.Equal(got, []cri.ContainerState{cri.ContainerState_CONTAINER_EXITED, cri.ContainerState_CONTAINER_UNKNOWN}) {
		t.Errorf("got %v", got)
	}
}

func TestPodStatusHasAllAddresses(t *testing.T) {
	p := &sandbox.Pod{
		ID: "x", Ready: true, CreatedAt: time.Unix(0, 42), Config: &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: "n"}},
		IPs:       []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2"), netip.MustParseAddr("10.1.0.2")},
		CNIResult: []byte(`{"cniVersion":"1.1.0"}`), Namespaces: sandbox.Namespaces{Net: "/ns/net"},
	}
	s := New(Config{Pods: &fakePods{pods: []*sandbox.Pod{p}}})
	r, err := s.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: "x", Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	n := r.GetStatus().GetNetwork()
	if n.GetIp() != "10.0.0.2" || len(n.GetAdditionalIps()) != 2 || n.GetAdditionalIps()[0].GetIp() != "fd00::2" {
		t.Errorf("network %v", n)
	}
	if r.GetStatus().GetCreatedAt() != 42 || r.GetInfo()["info"] == "" {
		t.Errorf("status %v, info %v", r.GetStatus(), r.GetInfo())
	}
}

// fakeRuntimes are probed unless err is set.
type fakeRuntimes struct {
	handlers []*cri.RuntimeHandler
	err      error
}

func (f *fakeRuntimes) Handlers() []*cri.RuntimeHandler { return f.handlers }

func (f *fakeRuntimes) Status() error { return f.err }

func noInfo() map[string]string { return map[string]string{"config": "{}"} }

// TestStatusWaitsForTheRuntimes checks that the runtime is not ready before the
// features of all handlers are known, and that the network does not depend on it.
func TestStatusWaitsForTheRuntimes(t *testing.T) {
	f := &fakeRuntimes{err: errors.New("crun is still being probed"), handlers: []*cri.RuntimeHandler{{Name: "crun"}}}
	s := New(Config{Pods: &fakePods{}, Images: &fakeImages{}, Runtimes: f, Info: noInfo})
	for _, ready := range []bool{false, true} {
		r, err := s.Status(t.Context(), &cri.StatusRequest{})
		if err != nil || len(r.GetRuntimeHandlers()) != 1 {
			t.Fatalf("%v, %v", r, err)
		}
		for _, c := range r.GetStatus().GetConditions() {
			if want := ready || c.GetType() != cri.RuntimeReady; c.GetStatus() != want {
				t.Errorf("condition %v", c)
			}
			if !c.GetStatus() && (c.GetReason() == "" || c.GetMessage() != f.err.Error()) {
				t.Errorf("condition %v", c)
			}
		}
		f.err = nil
	}
}

func TestStatusNamesWhatTheNetworkLacks(t *testing.T) {
	s := New(Config{Pods: &fakePods{network: errors.New("no network in /etc/cni/net.d")}, Images: &fakeImages{}, Runtimes: &fakeRuntimes{}, Info: noInfo})
	r, err := s.Status(t.Context(), &cri.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.GetStatus().GetConditions() {
		if want := c.GetType() == cri.RuntimeReady; c.GetStatus() != want {
			t.Errorf("condition %v", c)
		}
		if c.GetType() == cri.NetworkReady && (c.GetReason() == "" || c.GetMessage() != "no network in /etc/cni/net.d") {
			t.Errorf("condition %v", c)
		}
	}
	if len(r.GetInfo()) != 0 {
		t.Error("info without being asked")
	}
}

func TestImages(t *testing.T) {
	img := image.Image{ID: "sha256:aa", RepoTags: []string{"r/x:1"}, Size: 7}
	img.Config.Config.User = "1000:50"
	s := New(Config{Images: &fakeImages{list: []image.Image{img}}})
	st, err := s.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: "unknown"}})
	if err != nil || st.GetImage() != nil {
		t.Errorf("an unknown image: %v, %v; want an empty answer", st, err)
	}
	for _, ref := range []string{"", "sha256:aa"} {
		l, err := s.ListImages(t.Context(), &cri.ListImagesRequest{Filter: &cri.ImageFilter{Image: &cri.ImageSpec{Image: ref}}})
		if err != nil || len(l.GetImages()) != 1 || l.GetImages()[0].GetUid().GetValue() != 1000 || l.GetImages()[0].GetUsername() != "" {
			t.Errorf("filter %q: %v, %v", ref, l, err)
		}
	}
	if l, err := s.ListImages(t.Context(), &cri.ListImagesRequest{Filter: &cri.ImageFilter{Image: &cri.ImageSpec{Image: "other"}}}); err != nil || len(l.GetImages()) != 0 {
		t.Errorf("a filter that matches nothing: %v, %v", l, err)
	}
}

// TestImageUserIsThatOfContainers: the kubelet checks runAsNonRoot with what the
// status of an image says.
func TestImageUserIsThatOfContainers(t *testing.T) {
	for user, want := range map[string]*cri.Image{
		"0":        {Uid: &cri.Int64Value{}},
		"1000:50":  {Uid: &cri.Int64Value{Value: 1000}},
		"+5":       {Username: "+5"},
		"www:data": {Username: "www"},
		"":         {},
	} {
		var img image.Image
		img.Config.Config.User = user
		got := imageItem(img)
		if (got.Uid == nil) != (want.Uid == nil) || got.GetUid().GetValue() != want.GetUid().GetValue() || got.Username != want.Username {
			t.Errorf("USER %q: uid %v, username %q", user, got.Uid, got.Username)
		}
	}
}

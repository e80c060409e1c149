package admin

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/image"
)

// pullStore is an image store with one pull, which ends when release is closed.
type pullStore struct {
	ImageStore
	release chan struct{}
	request image.PullRequest
	err     error // of the pull
}

func (s *pullStore) Pull(ctx context.Context, req image.PullRequest) (image.Image, error) {
	s.request = req
	select {
	case <-s.release:
		return image.Image{ID: "sha256:1"}, s.err
	case <-ctx.Done():
		return image.Image{}, context.Cause(ctx)
	}
}

func (s *pullStore) PullProgressOf(image.PullRequest) (image.PullProgress, bool) {
	return image.PullProgress{Source: "m.example/a:1", Bytes: 1, Total: 2}, true
}

// pullStream collects the messages of a pull.
type pullStream struct {
	grpc.ServerStream
	ctx  context.Context //nolint:containedctx // the context of the stream
	send func(*adminv1.PullImageResponse) error
}

func (s *pullStream) Context() context.Context                { return s.ctx }
func (s *pullStream) Send(r *adminv1.PullImageResponse) error { return s.send(r) }

func TestPullImage(t *testing.T) {
	store := &pullStore{release: make(chan struct{})}
	s := New(Config{Images: store})
	var last *adminv1.PullImageResponse
	reported := 0
	out := &pullStream{ctx: t.Context(), send: func(r *adminv1.PullImageResponse) error {
		if last = r; r.GetProgress().GetSource() == "m.example/a:1" {
			if reported++; reported == 2 {
				close(store.release)
			}
		}
		return nil
	}}
	req := &adminv1.PullImageRequest{Name: "a:1", Credential: &adminv1.PullCredential{Username: "bob", Password: "p", Server: "r.example"}}
	if err := s.PullImage(req, out); err != nil {
		t.Fatal(err)
	}
	if reported < 2 || last.GetId() != "sha256:1" {
		t.Errorf("got %d messages with the progress and %v at the end", reported, last)
	}
	if a := store.request.Auth; store.request.Ref != "a:1" || a == nil || a.Username != "bob" || a.Password != "p" || a.ServerAddress != "r.example" {
		t.Errorf("got request for %q with another credential", store.request.Ref)
	}
}

// TestPullImageEnds checks that the pull ends when the client leaves or does not read.
func TestPullImageEnds(t *testing.T) {
	s := New(Config{Images: &pullStore{release: make(chan struct{})}})
	ctx, leave := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, leave)
	err := s.PullImage(&adminv1.PullImageRequest{Name: "a"}, &pullStream{ctx: ctx, send: func(*adminv1.PullImageResponse) error { return nil }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("client left: got %v", err)
	}
	broken := errors.New("broken stream")
	err = s.PullImage(&adminv1.PullImageRequest{Name: "a"}, &pullStream{ctx: t.Context(), send: func(*adminv1.PullImageResponse) error { return broken }})
	if !errors.Is(err, broken) {
		t.Errorf("client does not read: got %v", err)
	}
	if err := s.PullImage(&adminv1.PullImageRequest{}, nil); !errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), "name: ") {
		t.Errorf("no name: got %v", err)
	}
}

func TestIDMap(t *testing.T) {
	m := idMap([]*cri.IDMapping{{ContainerId: 0, HostId: 100000, Length: 1000}, {ContainerId: 2000, HostId: 5, Length: 1}})
	for id, want := range map[uint32]uint32{0: 100000, 999: 100999, 1000: 1000, 2000: 5, 2001: 2001} {
		if got := m(id); got != want {
			t.Errorf("%d: got %d, want %d", id, got, want)
		}
	}
}

func TestOverlayOptions(t *testing.T) {
	got := overlayOptions("rw,context=\"a:b:c\",lowerdir+=/a,lowerdir+=/b,upperdir=/u,workdir=/w,redirect_dir=nofollow,volatile")
	if want := "rw context=\"a:b:c\" redirect_dir=nofollow volatile"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

package admin

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/image"
)

// loadStore is an image store that reads the archive, and then waits for release.
type loadStore struct {
	ImageStore
	release chan struct{}
	key     string
	data    string
}

func (s *loadStore) Load(ctx context.Context, req image.LoadRequest) ([]image.LoadedImage, error) {
	b, err := io.ReadAll(req.Archive)
	if err != nil {
		return nil, err
	}
	s.data, s.key = string(b), req.Key
	select {
	case <-s.release:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return []image.LoadedImage{{Image: image.Image{ID: "sha256:1", Size: 3}, Names: []string{"a:1"}, Existed: true}, {Err: errors.New("damaged")}}, nil
}

func (s *loadStore) LoadProgress(key string) (image.PullProgress, bool) {
	return image.PullProgress{Bytes: 1, Total: 2}, key != ""
}

// loadStream is a stream of messages of a client.
type loadStream struct {
	grpc.ServerStream
	ctx      context.Context //nolint:containedctx // the context of the stream
	messages []*adminv1.LoadImagesRequest
	send     func(*adminv1.LoadImagesResponse) error
}

func (s *loadStream) Context() context.Context                 { return s.ctx }
func (s *loadStream) Send(r *adminv1.LoadImagesResponse) error { return s.send(r) }

func (s *loadStream) Recv() (*adminv1.LoadImagesRequest, error) {
	if len(s.messages) == 0 {
		return nil, io.EOF
	}
	next := s.messages[0]
	s.messages = s.messages[1:]
	return next, nil
}

func TestLoadImages(t *testing.T) {
	store := &loadStore{release: make(chan struct{})}
	var last *adminv1.LoadImagesResponse
	reported := 0
	stream := &loadStream{ctx: t.Context(), messages: []*adminv1.LoadImagesRequest{{Size: 6, Data: []byte("one")}, {}, {Data: []byte("two")}}}
	stream.send = func(r *adminv1.LoadImagesResponse) error {
		if last = r; r.GetProgress() != nil {
			if reported++; reported == 2 {
				close(store.release)
			}
		}
		return nil
	}
	if err := New(Config{Images: store}).LoadImages(stream); err != nil {
		t.Fatal(err)
	}
	r := last.GetResult()
	if store.data != "onetwo" || store.key == "" || len(r.GetImages()) != 1 || len(r.GetErrors()) != 1 {
		t.Fatalf("got data %q and result %v", store.data, r)
	}
	if img := r.GetImages()[0]; img.GetId() != "sha256:1" || img.GetSize() != 3 || !img.GetExisted() || strings.Join(img.GetNames(), " ") != "a:1" {
		t.Errorf("got image %v", img)
	}
}

func TestLoadImagesRefused(t *testing.T) {
	for name, messages := range map[string][]*adminv1.LoadImagesRequest{
		"size: ": {{Size: 7, Data: []byte("one")}, {Data: []byte("two")}},
		"size":   {{Size: -1}},
		"data: ": nil,
	} {
		stream := &loadStream{ctx: t.Context(), messages: messages, send: func(*adminv1.LoadImagesResponse) error { return nil }}
		err := New(Config{Images: &loadStore{}}).LoadImages(stream)
		if !errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), name) {
			t.Errorf("%v: got %v", messages, err)
		}
	}
	ctx, leave := context.WithCancel(t.Context())
	leave()
	stream := &loadStream{ctx: ctx, messages: []*adminv1.LoadImagesRequest{{Data: []byte("x")}}}
	if err := New(Config{Images: &loadStore{}}).LoadImages(stream); !errors.Is(err, context.Canceled) {
		t.Errorf("client has left: got %v", err)
	}
	if err := New(Config{}).SaveImages(&adminv1.SaveImagesRequest{Format: 99}, nil); !errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), "format: ") {
		t.Errorf("unknown format: got %v", err)
	}
}

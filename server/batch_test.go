package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
)

// manyContainers is a Containers of which only the lists work.
type manyContainers struct {
	Containers
	list []*container.Snapshot
}

func (m manyContainers) List() []*container.Snapshot { return m.list }

// serve runs a Server on a socket and returns a client that takes what the
// kubelet takes.
func serve(t *testing.T, cfg Config) cri.RuntimeServiceClient {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- New(cfg).Serve(ctx, l) }()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = conn.Close()
	})
	return cri.NewRuntimeServiceClient(conn)
}

func many(n, annotation int) []*container.Snapshot {
	list := make([]*container.Snapshot, n)
	for i := range list {
		list[i] = &container.Snapshot{ID: fmt.Sprintf("%064d", i), PodID: fmt.Sprintf("%064d", i%110), CreatedAt: time.Unix(1, 0), Config: &cri.ContainerConfig{
			Metadata:    &cri.ContainerMetadata{Name: "c", Attempt: uint32(i)},
			Labels:      map[string]string{"odd": fmt.Sprint(i % 2)},
			Annotations: map[string]string{"a": strings.Repeat("x", annotation)},
		}}
	}
	return list
}

func TestTwentyThousandContainersNeedAStream(t *testing.T) {
	const count = 20000
	c := serve(t, Config{Images: &fakeImages{}, Containers: manyContainers{list: many(count, 1000)}})
	_, err := c.ListContainers(t.Context(), &cri.ListContainersRequest{})
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "StreamContainers") {
		t.Errorf("a list beyond a message: %v", err)
	}
	odd := &cri.ContainerFilter{LabelSelector: map[string]string{"odd": "1"}}
	for _, tc := range []struct {
		filter *cri.ContainerFilter
		want   int
	}{{nil, count}, {odd, count / 2}, {&cri.ContainerFilter{Id: "none"}, 0}} {
		stream, err := c.StreamContainers(t.Context(), &cri.StreamContainersRequest{Filter: tc.filter})
		if err != nil {
			t.Fatal(err)
		}
		seen := make(map[string]bool)
		for {
			m, err := stream.Recv()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Error(err)
				}
				break
			}
			if len(m.GetContainers()) == 0 || proto.Size(m) > batchBytes {
				t.Errorf("a message of %d items and %d bytes", len(m.GetContainers()), proto.Size(m))
			}
			for _, item := range m.GetContainers() {
				if seen[item.GetId()] {
					t.Errorf("%s came twice", item.GetId())
				}
				seen[item.GetId()] = true
			}
		}
		if len(seen) != tc.want {
			t.Errorf("filter %v: %d containers, want %d", tc.filter, len(seen), tc.want)
		}
	}
}

func TestAnItemAboveTheBoundTravelsAlone(t *testing.T) {
	sizes := []int{10, batchBytes + 1, 10, 10}
	var items []*cri.Container
	for _, n := range sizes {
		items = append(items, &cri.Container{Id: strings.Repeat("x", n)})
	}
	var got []int
	if err := batches(slices.Values(items), func(b []*cri.Container) error {
		got = append(got, len(b))
		return nil
	}); err != nil || !slices.Equal(got, []int{1, 1, 2}) {
		t.Errorf("batches of %v, %v", got, err)
	}
}

func TestBatchesEndWithTheReader(t *testing.T) {
	gone := errors.New("gone")
	items := []*cri.Container{{Id: strings.Repeat("x", batchBytes)}, {Id: strings.Repeat("y", batchBytes)}}
	calls := 0
	err := batches(slices.Values(items), func([]*cri.Container) error { calls++; return gone })
	if !errors.Is(err, gone) || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

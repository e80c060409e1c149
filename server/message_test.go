package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
)

// listedContainers is a Containers in which only List works.
type listedContainers struct {
	Containers
	list []*container.Snapshot
}

func (m listedContainers) List() []*container.Snapshot { return m.list }

// manySnapshots returns n containers with an annotation of the given length.
func manySnapshots(n, annotation int) []*container.Snapshot {
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

func TestStreamContainersBeyondOneMessage(t *testing.T) {
	const count = 20000
	c := serve(t, Config{Images: &fakeImages{}, Containers: listedContainers{list: manySnapshots(count, 1000)}})
	_, err := c.ListContainers(t.Context(), &cri.ListContainersRequest{})
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "StreamContainers") {
		t.Errorf("ListContainers beyond one message: %v", err)
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
				t.Errorf("message of %d items and %d bytes", len(m.GetContainers()), proto.Size(m))
			}
			for _, item := range m.GetContainers() {
				if seen[item.GetId()] {
					t.Errorf("container %s was sent twice", item.GetId())
				}
				seen[item.GetId()] = true
			}
		}
		if len(seen) != tc.want {
			t.Errorf("filter %v: %d containers, want %d", tc.filter, len(seen), tc.want)
		}
	}
}

func TestLargeItemGetsItsOwnMessage(t *testing.T) {
	sizes := []int{10, batchBytes + 1, 10, 10}
	var items []*cri.Container
	for _, n := range sizes {
		items = append(items, &cri.Container{Id: strings.Repeat("x", n)})
	}
	var got []int
	if err := sendBatches(slices.Values(items), func(b []*cri.Container) error {
		got = append(got, len(b))
		return nil
	}); err != nil || !slices.Equal(got, []int{1, 1, 2}) {
		t.Errorf("batches of %v items, %v; want 1, 1, 2", got, err)
	}
}

func TestSendBatchesStopsOnError(t *testing.T) {
	errSend := errors.New("send failed")
	items := []*cri.Container{{Id: strings.Repeat("x", batchBytes)}, {Id: strings.Repeat("y", batchBytes)}}
	calls := 0
	err := sendBatches(slices.Values(items), func([]*cri.Container) error { calls++; return errSend })
	if !errors.Is(err, errSend) || calls != 1 {
		t.Errorf("%d calls of send, %v", calls, err)
	}
}

// TestTruncateOutput checks that the answer to ExecSync has the beginning of an output that is too long.
func TestTruncateOutput(t *testing.T) {
	const full, framing = maxMessage, 2*(1+4) + 1 + 1 // tags and lengths, and the exit code 7
	const room = full - framing
	for name, tc := range map[string]struct{ out, errs, wantOut, wantErrs int }{
		"short":                 {10, 20, 10, 20},
		"largest":               {room, 0, room, 0},
		"one byte more":         {room + 1, 0, room, 0},
		"full message":          {full, 0, room, 0},
		"full stderr":           {0, full, 0, room},
		"both too long":         {full, full, room / 2, room - room/2},
		"together too long":     {9_000_000, 9_000_000, room / 2, room - room/2},
		"stderr is the shorter": {full, 1000, room - 1000, 1000},
		"stdout is the shorter": {1000, full, 1000, room - 1000},
	} {
		t.Run(name, func(t *testing.T) {
			output := container.ExecResult{Stdout: bytes.Repeat([]byte("o"), tc.out), Stderr: bytes.Repeat([]byte("e"), tc.errs), ExitCode: 7}
			client := serve(t, Config{Containers: &execContainers{result: output}})
			r, err := client.ExecSync(t.Context(), &cri.ExecSyncRequest{ContainerId: "x", Cmd: []string{"y"}})
			if err != nil {
				t.Fatal(err)
			}
			if len(r.GetStdout()) != tc.wantOut || len(r.GetStderr()) != tc.wantErrs || r.GetExitCode() != 7 {
				t.Errorf("%d and %d bytes, exit code %d; want %d, %d, 7", len(r.GetStdout()), len(r.GetStderr()), r.GetExitCode(), tc.wantOut, tc.wantErrs)
			}
			if !bytes.HasPrefix(output.Stdout, r.GetStdout()) || !bytes.HasPrefix(output.Stderr, r.GetStderr()) {
				t.Error("the output is not the beginning of what the command wrote")
			}
		})
	}
}

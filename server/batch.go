package server

import (
	"fmt"
	"iter"
	"path"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// batchBytes is where a message of a streamed list is full. It is far below
// what a client takes by gRPC's default of 4 MiB, and large enough that a list
// of 20,000 containers is a few dozen messages.
const batchBytes = 1 << 20

// batches sends items in messages of at most batchBytes, each item once and in
// order. Every message has one item at least, as the CRI wants it, so that one
// item that is too large travels alone and no items make no message.
func batches[T proto.Message](items iter.Seq[T], send func([]T) error) error {
	var batch []T
	size := 0
	for item := range items {
		// Its tag is one byte in all lists of the CRI; its length goes before it.
		n := 1 + protowire.SizeBytes(proto.Size(item))
		if size+n > batchBytes && len(batch) > 0 {
			if err := send(batch); err != nil {
				return err
			}
			// The message just sent is the transport's now: no reuse.
			batch, size = nil, 0
		}
		batch, size = append(batch, item), size+n
	}
	if len(batch) == 0 {
		return nil
	}
	return send(batch)
}

// streamed names the streaming call for each list.
var streamed = map[string]string{
	"ListPodSandbox":        "StreamPodSandboxes",
	"ListContainers":        "StreamContainers",
	"ListContainerStats":    "StreamContainerStats",
	"ListPodSandboxStats":   "StreamPodSandboxStats",
	"ListPodSandboxMetrics": "StreamPodSandboxMetrics",
	"ListImages":            "StreamImages",
}

// fits refuses a list that no client would take, and says what to do instead.
func fits(method string, resp any) error {
	other := streamed[path.Base(method)]
	m, ok := resp.(proto.Message)
	if other == "" || !ok {
		return nil
	}
	if n := proto.Size(m); n > maxMessage {
		return fmt.Errorf("the list takes %d bytes and a message holds %d: narrow the filter or call %s: %w", n, maxMessage, other, errdefs.ErrResourceExhausted)
	}
	return nil
}

// capOutput drops the end of what a command wrote so that the answer fits into a
// message (CRI, ExecSyncResponse: the rest is discarded without an error). Of two
// streams that do not fit, each keeps half of the message, and the longer one
// also what the other leaves of its half.
func capOutput(r *cri.ExecSyncResponse) {
	bare := &cri.ExecSyncResponse{ExitCode: r.GetExitCode()}
	// Each stream has a tag of one byte, and its length before it.
	room := maxMessage - proto.Size(bare) - 2*(1+protowire.SizeVarint(maxMessage))
	out, errs := len(r.GetStdout()), len(r.GetStderr())
	if out+errs <= room {
		return
	}
	r.Stdout = r.Stdout[:min(out, max(room/2, room-errs))]
	r.Stderr = r.Stderr[:min(errs, room-len(r.Stdout))]
}

// StreamPodSandboxes is ListPodSandbox in messages of bounded size.
func (s *Server) StreamPodSandboxes(req *cri.StreamPodSandboxesRequest, out cri.RuntimeService_StreamPodSandboxesServer) error {
	return batches(s.podItems(req.GetFilter()), func(items []*cri.PodSandbox) error {
		return out.Send(&cri.StreamPodSandboxesResponse{PodSandboxes: items})
	})
}

// StreamContainers is ListContainers in messages of bounded size.
func (s *Server) StreamContainers(req *cri.StreamContainersRequest, out cri.RuntimeService_StreamContainersServer) error {
	return batches(s.containerItems(req.GetFilter()), func(items []*cri.Container) error {
		return out.Send(&cri.StreamContainersResponse{Containers: items})
	})
}

// StreamImages is ListImages in messages of bounded size.
func (s *Server) StreamImages(req *cri.StreamImagesRequest, out cri.ImageService_StreamImagesServer) error {
	items, err := s.imageItems(req.GetFilter())
	if err != nil {
		return err
	}
	return batches(items, func(items []*cri.Image) error {
		return out.Send(&cri.StreamImagesResponse{Images: items})
	})
}

package server

import (
	"fmt"
	"iter"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxMessage is the largest message in bytes. The kubelet's client has the same
// bound.
const maxMessage = 16 << 20

// batchBytes bounds a message of a streamed list, in bytes. It is far below the
// default bound of a gRPC client, 4 MiB, and large enough that a list of 20,000
// containers needs only a few dozen messages.
const batchBytes = 1 << 20

// sendBatches sends the items in messages of at most batchBytes, in order and each
// item once. Every message has at least one item, as the CRI demands: an item that
// is too large gets its own message, and without items there is no message.
func sendBatches[T proto.Message](items iter.Seq[T], send func([]T) error) error {
	var batch []T
	size := 0
	for item := range items {
		// The tag of an item is one byte in all lists of the CRI. The length follows it.
		n := 1 + protowire.SizeBytes(proto.Size(item))
		if size+n > batchBytes && len(batch) > 0 {
			if err := send(batch); err != nil {
				return err
			}
			// The transport may still read the batch, so its memory must not be reused.
			batch, size = nil, 0
		}
		batch, size = append(batch, item), size+n
	}
	if len(batch) == 0 {
		return nil
	}
	return send(batch)
}

// streamingRPCs names the streaming RPC for each RPC that returns a list.
var streamingRPCs = map[string]string{
	"ListPodSandbox":        "StreamPodSandboxes",
	"ListContainers":        "StreamContainers",
	"ListContainerStats":    "StreamContainerStats",
	"ListPodSandboxStats":   "StreamPodSandboxStats",
	"ListPodSandboxMetrics": "StreamPodSandboxMetrics",
	"ListImages":            "StreamImages",
}

// checkListSize returns ResourceExhausted for a list that exceeds maxMessage. The
// error names the streaming RPC to use instead.
func checkListSize(rpc string, resp any) error {
	streaming := streamingRPCs[rpc]
	m, ok := resp.(proto.Message)
	if streaming == "" || !ok {
		return nil
	}
	if n := proto.Size(m); n > maxMessage {
		return fmt.Errorf("list has %d bytes, more than a message of %d bytes: narrow the filter or call %s: %w", n, maxMessage, streaming, errdefs.ErrResourceExhausted)
	}
	return nil
}

// truncateOutput truncates the output of a command so that the answer fits into a
// message. The CRI says to discard the rest of the output without an error
// (ExecSyncResponse). If stdout and stderr do not fit together, each gets half of
// the message, and the longer one also gets the unused part of the other half.
func truncateOutput(r *cri.ExecSyncResponse) {
	withoutOutput := &cri.ExecSyncResponse{ExitCode: r.GetExitCode()}
	// Each of the two fields has a tag of one byte and its length.
	space := maxMessage - proto.Size(withoutOutput) - 2*(1+protowire.SizeVarint(maxMessage))
	stdout, stderr := len(r.GetStdout()), len(r.GetStderr())
	if stdout+stderr <= space {
		return
	}
	r.Stdout = r.Stdout[:min(stdout, max(space/2, space-stderr))]
	r.Stderr = r.Stderr[:min(stderr, space-len(r.Stdout))]
}

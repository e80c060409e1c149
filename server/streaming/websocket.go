package streaming

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/sirupsen/logrus"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"
	utilexec "k8s.io/utils/exec"
)

// Version 5 of the channel protocol, the only one that today's WebSocket clients
// speak. It is version 4, which cri-streaming has, and a message for the end of
// a channel, by which the input of a command can end.

// maxSize bounds the JSON of a terminal size, in bytes.
const maxSize = 1024

// operation does what a client wants with its streams.
type operation func(ctx context.Context, in io.Reader, out, errs io.WriteCloser, resize <-chan remotecommand.TerminalSize) error

func speaksV5(r *http.Request) bool { return wsstream.IsWebSocketRequestWithStreamCloseProtocol(r) }

// serveV5 runs do with the channels of a WebSocket as its streams and tells the
// client the outcome.
func serveV5(w http.ResponseWriter, r *http.Request, o Options, idle time.Duration, do operation) {
	conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{
		remotecommand.StreamProtocolV5Name: {Binary: true, Channels: channels(o)},
	})
	conn.SetIdleTimeout(idle)
	_, streams, err := conn.Open(w, r)
	if err != nil {
		logrus.WithContext(r.Context()).WithError(err).Debug("WebSocket") // the client has been told
		return
	}
	defer conn.Close()
	resize := make(chan remotecommand.TerminalSize)
	go func() {
		from := streams[remotecommand.StreamResize]
		readSizes(r.Context(), from, resize)
		// What comes after nonsense must not hold up the other channels.
		_, _ = io.Copy(io.Discard, from)
	}()
	outcome := do(r.Context(), streams[remotecommand.StreamStdIn], streams[remotecommand.StreamStdOut], streams[remotecommand.StreamStdErr], resize)
	if b, err := json.Marshal(statusOf(outcome)); err == nil {
		_, _ = streams[remotecommand.StreamErr].Write(b) // who left needs none
	}
}

// channels are those of the protocol, by their numbers.
func channels(o Options) []wsstream.ChannelType {
	when := func(wanted bool, kind wsstream.ChannelType) wsstream.ChannelType {
		if wanted {
			return kind
		}
		return wsstream.IgnoreChannel
	}
	return []wsstream.ChannelType{
		remotecommand.StreamStdIn:  when(o.Stdin, wsstream.ReadChannel),
		remotecommand.StreamStdOut: when(o.Stdout, wsstream.WriteChannel),
		remotecommand.StreamStdErr: when(o.Stderr, wsstream.WriteChannel),
		remotecommand.StreamErr:    wsstream.WriteChannel,
		remotecommand.StreamResize: wsstream.ReadChannel,
	}
}

// readSizes ends with the channel, or with what is no size, or with ctx.
func readSizes(ctx context.Context, from io.Reader, to chan<- remotecommand.TerminalSize) {
	defer close(to)
	limited := &io.LimitedReader{R: from}
	d := json.NewDecoder(limited)
	for {
		limited.N = maxSize
		var size remotecommand.TerminalSize
		if d.Decode(&size) != nil {
			return
		}
		select {
		case to <- size:
		case <-ctx.Done():
			return
		}
	}
}

// status is the part of the Kubernetes Status that clients of the protocol read.
type status struct {
	Status  string         `json:"status"`
	Message string         `json:"message,omitempty"`
	Reason  string         `json:"reason,omitempty"`
	Details *statusDetails `json:"details,omitempty"`
	Code    int            `json:"code,omitempty"`
}

type statusDetails struct {
	Causes []statusCause `json:"causes"`
}

type statusCause struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

func statusOf(err error) status {
	var exit utilexec.ExitError
	switch {
	case err == nil:
		return status{Status: "Success"}
	case errors.As(err, &exit):
		return status{
			Status: "Failure", Reason: remotecommand.NonZeroExitCodeReason,
			Message: fmt.Sprintf("command terminated with non-zero exit code: %v", err),
			Details: &statusDetails{[]statusCause{{remotecommand.ExitCodeCauseType, strconv.Itoa(exit.ExitStatus())}}},
		}
	}
	return status{
		Status: "Failure", Reason: "InternalError", Code: http.StatusInternalServerError,
		Message: fmt.Sprintf("Internal error occurred: %v", err),
	}
}

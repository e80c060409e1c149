package streaming

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/net/websocket"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
	"k8s.io/streaming/pkg/httpstream/wsstream"
	utilexec "k8s.io/utils/exec"
)

// Current WebSocket clients use only version 5 of the channel protocol. Package
// cri-streaming implements version 4. Version 5 adds a message that closes a channel,
// by which a client can end the input of a command.

// maxTerminalSizeJSON bounds the JSON of a terminal size, in bytes.
const maxTerminalSizeJSON = 1024

// streamFunc runs an exec or attach with the streams of a client.
type streamFunc func(ctx context.Context, in io.Reader, out, errs io.WriteCloser, resize <-chan remotecommand.TerminalSize) error

// isV5Request reports whether a client requests version 5 of the channel protocol.
func isV5Request(r *http.Request) bool { return wsstream.IsWebSocketRequestWithStreamCloseProtocol(r) }

// serveV5 calls run with the channels of a WebSocket as streams, and sends the status
// to the client.
func serveV5(w http.ResponseWriter, r *http.Request, o Options, idleTimeout time.Duration, run streamFunc) {
	conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{
		remotecommand.StreamProtocolV5Name: {Binary: true, Channels: channels(o)},
	})
	conn.SetIdleTimeout(idleTimeout)
	_, streams, err := conn.Open(w, r)
	if err != nil {
		logrus.WithContext(r.Context()).WithError(err).Debug("WebSocket handshake failed") // Open has answered the client
		return
	}
	defer conn.Close()
	resize := make(chan remotecommand.TerminalSize)
	go func() {
		channel := streams[remotecommand.StreamResize]
		readSizes(r.Context(), channel, resize)
		// Unread messages would block the other channels.
		_, _ = io.Copy(io.Discard, channel)
	}()
	runErr := run(r.Context(), streams[remotecommand.StreamStdIn], streams[remotecommand.StreamStdOut], streams[remotecommand.StreamStdErr], resize)
	if b, err := json.Marshal(newStatus(runErr)); err == nil {
		_, _ = streams[remotecommand.StreamErr].Write(b) // fails if the client has left
	}
}

// channels returns the channels of the protocol. The index of a channel is its number.
func channels(o Options) []wsstream.ChannelType {
	onlyIf := func(requested bool, kind wsstream.ChannelType) wsstream.ChannelType {
		if requested {
			return kind
		}
		return wsstream.IgnoreChannel
	}
	return []wsstream.ChannelType{
		remotecommand.StreamStdIn:  onlyIf(o.Stdin, wsstream.ReadChannel),
		remotecommand.StreamStdOut: onlyIf(o.Stdout, wsstream.WriteChannel),
		remotecommand.StreamStdErr: onlyIf(o.Stderr, wsstream.WriteChannel),
		remotecommand.StreamErr:    wsstream.WriteChannel,
		remotecommand.StreamResize: wsstream.ReadChannel,
	}
}

// readSizes sends the terminal sizes that it reads. It returns at the end of the
// channel, after an invalid size, or when ctx ends.
func readSizes(ctx context.Context, from io.Reader, to chan<- remotecommand.TerminalSize) {
	defer close(to)
	limited := &io.LimitedReader{R: from}
	d := json.NewDecoder(limited)
	for {
		limited.N = maxTerminalSizeJSON
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

// status has the fields of the Kubernetes type Status that clients of the protocol
// read.
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

// newStatus returns the status for the result of an exec or attach.
func newStatus(err error) status {
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

// isTunnelRequest reports whether a client forwards ports by SPDY inside a WebSocket.
// The payload of the binary messages is the data of the SPDY connection.
func isTunnelRequest(r *http.Request) bool {
	return wsstream.IsWebSocketRequestWithTunnelingProtocol(r)
}

// serveTunnel accepts the WebSocket and calls next with a request for an upgrade to
// SPDY, whose connection is the WebSocket.
func serveTunnel(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
	inner := r.Clone(r.Context())
	inner.Header = http.Header{
		httpstream.HeaderConnection:      {httpstream.HeaderUpgrade},
		httpstream.HeaderUpgrade:         {spdy.HeaderSpdy31},
		httpstream.HeaderProtocolVersion: {portforward.ProtocolV1Name},
	}
	websocket.Server{
		Handshake: func(c *websocket.Config, _ *http.Request) error {
			if !slices.Contains(c.Protocol, portforward.WebsocketsSPDYTunnelingPortForwardV1) {
				return websocket.ErrBadWebSocketProtocol
			}
			c.Protocol = []string{portforward.WebsocketsSPDYTunnelingPortForwardV1}
			return nil
		},
		Handler: func(c *websocket.Conn) {
			c.PayloadType = websocket.BinaryFrame
			next(&tunnelResponse{conn: c, header: make(http.Header)}, inner)
		},
	}.ServeHTTP(w, r)
}

// tunnelResponse is the http.ResponseWriter of the request inside the tunnel. It
// discards the response to the upgrade, which the client does not expect, and returns
// the WebSocket as the connection.
type tunnelResponse struct {
	conn   *websocket.Conn
	header http.Header
}

func (t *tunnelResponse) Header() http.Header         { return t.header }
func (t *tunnelResponse) WriteHeader(int)             {}
func (t *tunnelResponse) Write(b []byte) (int, error) { return len(b), nil }

// Hijack returns the WebSocket.
func (t *tunnelResponse) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return t.conn, bufio.NewReadWriter(bufio.NewReader(t.conn), bufio.NewWriter(t.conn)), nil
}

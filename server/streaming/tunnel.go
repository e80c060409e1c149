package streaming

import (
	"bufio"
	"net"
	"net/http"
	"slices"

	"golang.org/x/net/websocket"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// Clients without SPDY in HTTP forward ports by SPDY inside of a WebSocket: the
// payload of its binary messages is what would be on the connection.

// tunneled says whether a client asks for that.
func tunneled(r *http.Request) bool { return wsstream.IsWebSocketRequestWithTunnelingProtocol(r) }

// serveTunnel has next serve what comes through the WebSocket, as if it were a
// connection that the request has upgraded to SPDY.
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
			next(&tunnel{conn: c, header: make(http.Header)}, inner)
		},
	}.ServeHTTP(w, r)
}

// tunnel is the answer to a request that came through a WebSocket: there is no
// room for one but the connection itself.
type tunnel struct {
	conn   *websocket.Conn
	header http.Header
}

func (t *tunnel) Header() http.Header         { return t.header }
func (t *tunnel) WriteHeader(int)             {}
func (t *tunnel) Write(b []byte) (int, error) { return len(b), nil }

// Hijack hands out the connection.
func (t *tunnel) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return t.conn, bufio.NewReadWriter(bufio.NewReader(t.conn), bufio.NewWriter(t.conn)), nil
}

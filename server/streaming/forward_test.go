package streaming

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/websocket"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// listenOnPort80 returns a backend whose pod has a listener on port 80 only.
func listenOnPort80(t *testing.T, handle func(*net.TCPConn)) *fakeBackend {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				handle(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return &fakeBackend{dial: func(ctx context.Context, port uint16) (net.Conn, error) {
		if port != 80 {
			return nil, fmt.Errorf("port %d: connection refused", port)
		}
		return (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
	}}
}

// dialTunnel opens a SPDY connection inside a WebSocket.
func dialTunnel(t *testing.T, address string) (httpstream.Connection, net.Conn) {
	t.Helper()
	ws, raw := dialWebSocket(t, address, portforward.WebsocketsSPDYTunnelingPortForwardV1)
	ws.PayloadType = websocket.BinaryFrame
	conn, err := spdy.NewClientConnection(ws)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn, raw
}

// forwardProtocols are the protocols for port forward.
var forwardProtocols = map[string]func(*testing.T, string) (httpstream.Connection, net.Conn){
	"SPDY": func(t *testing.T, u string) (httpstream.Connection, net.Conn) {
		return upgrade(t, u, portforward.ProtocolV1Name)
	},
	"SPDY in WebSocket": dialTunnel,
}

// TestPortForwardHalfClose checks that each side closes its direction independently.
func TestPortForwardHalfClose(t *testing.T) {
	for name, connect := range forwardProtocols {
		t.Run(name, func(t *testing.T) {
			f := listenOnPort80(t, func(c *net.TCPConn) {
				b, err := io.ReadAll(c) // until the client closes its direction
				if err == nil {
					_, _ = fmt.Fprintf(c, "%d bytes", len(b))
				}
			})
			s, _ := startServer(t, f)
			conn, _ := connect(t, forwardURL(t, s))
			data, errs := forwardConn(t, conn, "80", 1)
			if _, err := data.Write(make([]byte, 100_000)); err != nil {
				t.Fatal(err)
			}
			if err := data.Close(); err != nil {
				t.Fatal(err)
			}
			if got := readAll(t, data); got != "100000 bytes" {
				t.Errorf("got %q", got)
			}
			if got := readAll(t, errs); got != "" {
				t.Errorf("error stream %q", got)
			}
		})
	}
}

// TestPortForwardConcurrent checks that a client gets all data of a pod that closes the
// connection first, and that unread data of a client does not block other connections.
func TestPortForwardConcurrent(t *testing.T) {
	for name, connect := range forwardProtocols {
		t.Run(name, func(t *testing.T) {
			f := listenOnPort80(t, func(c *net.TCPConn) {
				b := make([]byte, 4)
				if _, err := io.ReadFull(c, b); err == nil {
					_, _ = c.Write(b)
				}
			})
			s, _ := startServer(t, f)
			conn, _ := connect(t, forwardURL(t, s))
			var wg sync.WaitGroup
			for i := range 50 {
				data, _ := forwardConn(t, conn, "80", i)
				wg.Go(func() {
					word := fmt.Sprintf("%04d", i)
					if _, err := io.WriteString(data, word); err != nil {
						t.Error(err)
					}
					for range 20 {
						_, _ = data.Write(make([]byte, 10_000)) // the pod may have closed
					}
					b := make([]byte, 4)
					if _, err := io.ReadFull(data, b); err == nil && string(b) != word {
						t.Errorf("got %q, want %q", b, word)
					}
					_ = data.Close()
				})
			}
			wg.Wait()
		})
	}
}

func TestPortForwardErrors(t *testing.T) {
	for name, connect := range forwardProtocols {
		t.Run(name, func(t *testing.T) {
			s, _ := startServer(t, listenOnPort80(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, "x") }))
			conn, _ := connect(t, forwardURL(t, s))
			_, errs := forwardConn(t, conn, "81", 1)
			if got := readAll(t, errs); !strings.Contains(got, "connection refused") {
				t.Errorf("got %q", got)
			}
			// The failure of one connection must not affect the others.
			data, _ := forwardConn(t, conn, "80", 2)
			if got := readAll(t, data); got != "x" {
				t.Errorf("got %q", got)
			}
		})
	}
}

// TestPortForwardEndsWhenClientLeaves checks that the connection to the pod is closed
// when the client leaves.
func TestPortForwardEndsWhenClientLeaves(t *testing.T) {
	for name, connect := range forwardProtocols {
		t.Run(name, func(t *testing.T) {
			connected, closed := make(chan struct{}, 1), make(chan error, 1)
			f := listenOnPort80(t, func(c *net.TCPConn) {
				connected <- struct{}{}
				_, err := c.Read(make([]byte, 1))
				closed <- err
			})
			s, _ := startServer(t, f)
			conn, raw := connect(t, forwardURL(t, s))
			forwardConn(t, conn, "80", 1)
			receive(t, connected)
			if err := raw.Close(); err != nil {
				t.Fatal(err)
			}
			if err := receive(t, closed); err == nil || errors.Is(err, net.ErrClosed) {
				t.Errorf("read in the pod: %v, want the end of the connection", err)
			}
		})
	}
}

// TestPortForwardWebSocketChannels tests the older protocol, in which the RPC names the
// ports and each port has two channels.
func TestPortForwardWebSocketChannels(t *testing.T) {
	s, _ := startServer(t, listenOnPort80(t, func(c *net.TCPConn) { _, _ = io.Copy(c, io.LimitReader(c, 4)) }))
	ws, _ := dialWebSocket(t, forwardURL(t, s, 80, 81), "v4.channel.k8s.io")
	defer ws.Close()
	got := make(map[byte]string)
	for i := range 4 { // the first message of each channel is its port
		var m []byte
		if err := websocket.Message.Receive(ws, &m); err != nil {
			t.Fatal(err)
		}
		if len(m) != 3 || binary.LittleEndian.Uint16(m[1:]) != uint16(80+m[0]/2) {
			if len(m) > 0 {
				got[m[0]] += string(m[1:])
			}
			t.Logf("message %d: %q", i, m)
		}
	}
	if _, err := (channel{ws, 0}).Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	for got[0] != "ping" || !strings.Contains(got[3], "connection refused") {
		var m []byte
		if err := websocket.Message.Receive(ws, &m); err != nil {
			t.Fatalf("%v; received so far: %q", err, got)
		}
		got[m[0]] += string(m[1:])
	}
}

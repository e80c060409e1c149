package streaming

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/net/websocket"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/criserver/criserver/container"
)

// waitTimeout bounds the wait for an event. No test requires that an event is fast.
const waitTimeout = 30 * time.Second

// fakeBackend is a Containers and a Pods that calls its functions.
type fakeBackend struct {
	exec   func(ctx context.Context, cmd []string, tty bool, s container.Streams) (int32, error)
	attach func(ctx context.Context, s container.Streams) error
	dial   func(ctx context.Context, port uint16) (net.Conn, error)
}

func (f *fakeBackend) Exec(ctx context.Context, id string, cmd []string, tty bool, s container.Streams) (int32, error) {
	if id != "c" {
		return 0, fmt.Errorf("container %q: %w", id, errdefs.ErrNotFound)
	}
	return f.exec(ctx, cmd, tty, s)
}

func (f *fakeBackend) Attach(ctx context.Context, _ string, s container.Streams) error {
	return f.attach(ctx, s)
}

func (f *fakeBackend) Dial(ctx context.Context, _ string, port uint16) (net.Conn, error) {
	return f.dial(ctx, port)
}

// startServer starts a server. When the test ends, it stops the server and checks that
// no goroutine is left.
func startServer(t *testing.T, f *fakeBackend, change ...func(*Config)) (s *Server, stop func()) {
	t.Helper()
	before := runtime.NumGoroutine()
	cfg := Config{Containers: f, Pods: f, IdleTimeout: time.Hour}
	for _, c := range change {
		c(&cfg)
	}
	s = New(cfg)
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	for {
		if _, err := s.Attach("c", Options{}); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-served:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(waitTimeout):
			t.Error("the server does not stop")
		}
	}
	t.Cleanup(func() {
		stop()
		eventually(t, "all goroutines end", func() bool { return runtime.NumGoroutine() <= before })
	})
	return s, stop
}

// eventually waits until ok returns true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(waitTimeout); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("timeout: %s\n%s", what, buf[:runtime.Stack(buf, true)])
		}
	}
}

// receive returns the next value of a channel, and fails the test after waitTimeout.
func receive[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(waitTimeout):
		t.Fatal("timeout: received no value")
		panic("not reached")
	}
}

// execURL returns the URL for an exec in the container "c".
func execURL(t *testing.T, s *Server, o Options) string {
	t.Helper()
	u, err := s.Exec("c", []string{"command"}, o)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// forwardURL returns the URL for a port forward to the pod "p".
func forwardURL(t *testing.T, s *Server, ports ...int32) string {
	t.Helper()
	u, err := s.PortForward("p", ports)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// dial connects to a URL. It accepts every certificate.
func dial(t *testing.T, address string) (net.Conn, *url.URL) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if u.Scheme == "https" {
		return tls.Client(c, &tls.Config{InsecureSkipVerify: true}), u //nolint:gosec // the certificate is the test's
	}
	return c, u
}

// client is the client of a session in any protocol.
type client struct {
	conn   net.Conn
	stdin  io.WriteCloser
	stdout io.Reader
	stderr io.Reader
	status io.Reader // the channel of the status
	resize io.Writer
	spdy   httpstream.Connection
	ws     *websocket.Conn
}

// upgrade opens a SPDY connection.
func upgrade(t *testing.T, address, protocol string) (httpstream.Connection, net.Conn) {
	t.Helper()
	c, u := dial(t, address)
	_, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n%s: %s\r\n\r\n",
		u.Path, u.Host, spdy.HeaderSpdy31, httpstream.HeaderProtocolVersion, protocol)
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols || r.Buffered() != 0 {
		t.Fatalf("response %s with %d more bytes", resp.Status, r.Buffered())
	}
	conn, err := spdy.NewClientConnection(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn, c
}

// spdyClient opens the streams of o over SPDY.
func spdyClient(t *testing.T, address string, o Options) *client {
	t.Helper()
	conn, raw := upgrade(t, address, remotecommand.StreamProtocolV4Name)
	open := func(kind string, requested bool) httpstream.Stream {
		if !requested {
			return nil
		}
		st, err := conn.CreateStream(http.Header{remotecommand.StreamType: {kind}})
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	cl := &client{conn: raw, spdy: conn, status: open(remotecommand.StreamTypeError, true)}
	if st := open(remotecommand.StreamTypeStdin, o.Stdin); st != nil {
		cl.stdin = st
	}
	if st := open(remotecommand.StreamTypeStdout, o.Stdout); st != nil {
		cl.stdout = st
	}
	if st := open(remotecommand.StreamTypeStderr, o.Stderr); st != nil {
		cl.stderr = st
	}
	if st := open(remotecommand.StreamTypeResize, o.TTY); st != nil {
		cl.resize = st
	}
	return cl
}

// channel is a channel of a WebSocket for writing.
type channel struct {
	ws     *websocket.Conn
	number byte
}

func (c channel) Write(p []byte) (int, error) {
	return len(p), websocket.Message.Send(c.ws, append([]byte{c.number}, p...))
}

func (c channel) Close() error {
	return websocket.Message.Send(c.ws, []byte{remotecommand.StreamClose, c.number})
}

// dialWebSocket opens a WebSocket.
func dialWebSocket(t *testing.T, address, protocol string) (*websocket.Conn, net.Conn) {
	t.Helper()
	raw, u := dial(t, address)
	u.Scheme = "ws" + strings.TrimPrefix(u.Scheme, "http")
	config, err := websocket.NewConfig(u.String(), "http://localhost")
	if err != nil {
		t.Fatal(err)
	}
	config.Protocol = []string{protocol}
	ws, err := websocket.NewClient(config, raw)
	if err != nil {
		t.Fatal(err)
	}
	return ws, raw
}

// wsClient opens a WebSocket with version 5 of the channel protocol, which has all
// streams.
func wsClient(t *testing.T, address string, _ Options) *client {
	t.Helper()
	ws, raw := dialWebSocket(t, address, remotecommand.StreamProtocolV5Name)
	var readers [4]io.Reader
	var writers [4]*io.PipeWriter
	for i := range readers {
		readers[i], writers[i] = io.Pipe()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			var m []byte
			if err := websocket.Message.Receive(ws, &m); err != nil || len(m) == 0 {
				break
			}
			_, _ = writers[m[0]].Write(m[1:])
		}
		for _, w := range writers {
			_ = w.Close()
		}
	}()
	t.Cleanup(func() {
		for _, r := range readers {
			_ = r.(*io.PipeReader).Close()
		}
		_ = ws.Close()
		<-done
	})
	return &client{
		conn: raw, ws: ws,
		stdin: channel{ws, remotecommand.StreamStdIn}, resize: channel{ws, remotecommand.StreamResize},
		stdout: readers[1], stderr: readers[2], status: readers[3],
	}
}

// protocols are the protocols for exec and attach.
var protocols = map[string]func(*testing.T, string, Options) *client{"SPDY": spdyClient, "WebSocket": wsClient}

// forwardConn opens the data stream and the error stream of one connection to a port.
func forwardConn(t *testing.T, conn httpstream.Connection, port string, id int) (data, errs httpstream.Stream) {
	t.Helper()
	h := http.Header{portforward.PortHeader: {port}, portforward.PortForwardRequestIDHeader: {fmt.Sprint(id)}}
	h.Set(portforward.StreamType, portforward.StreamTypeError)
	errs, err := conn.CreateStream(h)
	if err == nil {
		h.Set(portforward.StreamType, portforward.StreamTypeData)
		data, err = conn.CreateStream(h)
	}
	if err = errors.Join(err); err != nil {
		t.Fatal(err)
	}
	return data, errs
}

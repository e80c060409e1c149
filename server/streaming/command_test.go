package streaming

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/internal/patience"
)

// forEachProtocol runs a test with every protocol, without and with TLS.
func forEachProtocol(t *testing.T, fn func(t *testing.T, connect func(*testing.T, string, Options) *client, change func(*Config))) {
	cert, key := certificate(t)
	for name, connect := range protocols {
		t.Run(name, func(t *testing.T) { fn(t, connect, func(*Config) {}) })
		t.Run(name+"+TLS", func(t *testing.T) {
			fn(t, connect, func(c *Config) {
				var err error
				if c.TLS, err = TLSConfig(TLSOptions{CertFile: cert, KeyFile: key}); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// certificate writes a certificate and its key into files.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, b []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert", "CERTIFICATE", cert), write("key", "PRIVATE KEY", der)
}

// readAll reads up to the end of a stream, and fails the test after waitTimeout.
func readAll(t *testing.T, r io.Reader) string {
	t.Helper()
	type result struct {
		b   []byte
		err error
	}
	done := make(chan result, 1)
	go func() {
		b, err := io.ReadAll(r)
		done <- result{b, err}
	}()
	got := receive(t, done)
	if got.err != nil {
		t.Errorf("read: %v", got.err)
	}
	return string(got.b)
}

// exitCode returns the cause in the JSON of a status, or the status itself.
func exitCode(t *testing.T, statusJSON string) string {
	t.Helper()
	var st status
	if err := json.Unmarshal([]byte(statusJSON), &st); err != nil {
		t.Fatalf("parse status %q: %v", statusJSON, err)
	}
	if st.Details == nil || len(st.Details.Causes) == 0 {
		return st.Status
	}
	return st.Details.Causes[0].Reason + " " + st.Details.Causes[0].Message
}

var allStreams = Options{Stdin: true, Stdout: true, Stderr: true}

func TestExec(t *testing.T) {
	forEachProtocol(t, func(t *testing.T, connect func(*testing.T, string, Options) *client, change func(*Config)) {
		s, _ := startServer(t, &fakeBackend{exec: func(_ context.Context, cmd []string, _ bool, s container.Streams) (int32, error) {
			fmt.Fprintln(s.Stderr, cmd)
			_, err := io.Copy(s.Stdout, s.Stdin)
			return 3, err
		}}, change)
		cl := connect(t, execURL(t, s, allStreams), allStreams)
		if _, err := io.WriteString(cl.stdin, "input"); err != nil {
			t.Fatal(err)
		}
		if err := cl.stdin.Close(); err != nil {
			t.Fatal(err)
		}
		errs := make(chan string, 1)
		go func() {
			b, _ := io.ReadAll(cl.stderr)
			errs <- string(b)
		}()
		status := make(chan string, 1)
		go func() {
			b, _ := io.ReadAll(cl.status)
			status <- string(b)
		}()
		if got := readAll(t, cl.stdout); got != "input" {
			t.Errorf("output %q", got)
		}
		if got := receive(t, errs); got != "[command]\n" {
			t.Errorf("errors %q", got)
		}
		if got := exitCode(t, receive(t, status)); got != "ExitCode 3" {
			t.Errorf("status %q", got)
		}
	})
}

func TestExecStatus(t *testing.T) {
	for name, connect := range protocols {
		t.Run(name, func(t *testing.T) {
			var execErr error
			s, _ := startServer(t, &fakeBackend{exec: func(context.Context, []string, bool, container.Streams) (int32, error) { return 0, execErr }})
			o := Options{Stdout: true}
			if got := exitCode(t, readAll(t, connect(t, execURL(t, s, o), o).status)); got != "Success" {
				t.Errorf("status of a success: %q", got)
			}
			execErr = errors.New("no such program")
			got := readAll(t, connect(t, execURL(t, s, o), o).status)
			if !strings.Contains(got, "no such program") || !strings.Contains(got, `"Failure"`) {
				t.Errorf("status of a failure: %q", got)
			}
		})
	}
}

// TestExecEndsWhenClientLeaves closes the connection of a client, also after the client
// has sent input that the command does not read. Then no reader sees the end of the
// connection.
func TestExecEndsWhenClientLeaves(t *testing.T) {
	forEachProtocol(t, func(t *testing.T, connect func(*testing.T, string, Options) *client, change func(*Config)) {
		running, ended := make(chan struct{}, 2), make(chan error, 2)
		s, _ := startServer(t, &fakeBackend{exec: func(ctx context.Context, _ []string, _ bool, _ container.Streams) (int32, error) {
			running <- struct{}{}
			<-ctx.Done()
			ended <- context.Cause(ctx)
			return 0, context.Cause(ctx)
		}}, change)
		for _, messages := range []int{0, 500} {
			cl := connect(t, execURL(t, s, allStreams), allStreams)
			receive(t, running)
			for range messages {
				if _, err := cl.stdin.Write(make([]byte, 50)); err != nil {
					t.Fatal(err)
				}
			}
			if err := cl.conn.Close(); err != nil {
				t.Fatal(err)
			}
			// If the connection is read, net/http can notice its end first.
			if err := receive(t, ended); !errors.Is(err, errClientLeft) && !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		}
	})
}

// TestExecOutputIsComplete checks that a slow client, which also sends input that the
// command does not read, gets all of the output and the status.
func TestExecOutputIsComplete(t *testing.T) {
	const size = 8 << 20
	forEachProtocol(t, func(t *testing.T, connect func(*testing.T, string, Options) *client, change func(*Config)) {
		s, _ := startServer(t, &fakeBackend{exec: func(_ context.Context, _ []string, _ bool, s container.Streams) (int32, error) {
			_, err := io.Copy(s.Stdout, bytes.NewReader(make([]byte, size)))
			return 7, err
		}}, change)
		o := Options{Stdin: true, Stdout: true}
		cl := connect(t, execURL(t, s, o), o)
		go func() {
			for b := make([]byte, 1000); ; time.Sleep(time.Millisecond) {
				if _, err := cl.stdin.Write(b); err != nil {
					return
				}
			}
		}()
		status := make(chan string, 1)
		go func() {
			b, _ := io.ReadAll(cl.status)
			status <- string(b)
		}()
		time.Sleep(100 * time.Millisecond)
		if got := len(readAll(t, cl.stdout)); got != size {
			t.Errorf("received %d of %d bytes", got, size)
		}
		if got := exitCode(t, receive(t, status)); got != "ExitCode 7" {
			t.Errorf("status %q", got)
		}
	})
}

func TestTerminalSizes(t *testing.T) {
	for name, connect := range protocols {
		t.Run(name, func(t *testing.T) {
			last := make(chan container.Size, 1)
			s, _ := startServer(t, &fakeBackend{attach: func(_ context.Context, s container.Streams) error {
				b := make([]byte, 1)
				if _, err := io.ReadFull(s.Stdin, b); err != nil { // pending sizes do not block the input
					return err
				}
				for size := range s.Resize {
					if size.Width == 1000 {
						last <- size
						return nil
					}
				}
				return errors.New("channel of sizes was closed")
			}})
			o := Options{Stdin: true, Stdout: true, TTY: true}
			u, err := s.Attach("c", o)
			if err != nil {
				t.Fatal(err)
			}
			cl := connect(t, u, o)
			for i := range 1000 {
				if _, err := fmt.Fprintf(cl.resize, `{"Width":%d,"Height":24}`, i+1); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := cl.stdin.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if got := receive(t, last); got != (container.Size{Width: 1000, Height: 24}) {
				t.Errorf("got %+v", got)
			}
			if got := exitCode(t, readAll(t, cl.status)); got != "Success" {
				t.Errorf("status %q", got)
			}
		})
	}
}

// TestInvalidTerminalSizes checks that an invalid size ends the resizing and not the
// session.
func TestInvalidTerminalSizes(t *testing.T) {
	for _, invalid := range []string{"not JSON", `{"Width":"` + strings.Repeat("1", 100_000), `{"Width":-1}`} {
		s, _ := startServer(t, &fakeBackend{exec: func(_ context.Context, _ []string, _ bool, s container.Streams) (int32, error) {
			for range s.Resize {
			}
			_, err := io.ReadFull(s.Stdin, make([]byte, 1))
			return 0, err
		}})
		o := Options{Stdin: true, Stdout: true, TTY: true}
		cl := wsClient(t, execURL(t, s, o), o)
		for range 3 {
			if _, err := io.WriteString(cl.resize, invalid); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := cl.stdin.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if got := exitCode(t, readAll(t, cl.status)); got != "Success" {
			t.Errorf("size %.20s: status %q", invalid, got)
		}
	}
}

// TestServeEndsSessions checks that Serve cancels the sessions and waits for them.
func TestServeEndsSessions(t *testing.T) {
	for name, connect := range protocols {
		t.Run(name, func(t *testing.T) {
			running, ended := make(chan struct{}), make(chan error, 1)
			s, stop := startServer(t, &fakeBackend{exec: func(ctx context.Context, _ []string, _ bool, _ container.Streams) (int32, error) {
				running <- struct{}{}
				<-ctx.Done()
				time.Sleep(50 * time.Millisecond)
				ended <- context.Cause(ctx)
				return 0, context.Cause(ctx)
			}})
			connect(t, execURL(t, s, allStreams), allStreams)
			receive(t, running)
			stop()
			select {
			case err := <-ended:
				if !errors.Is(err, errStopping) && !errors.Is(err, context.Canceled) {
					t.Errorf("got %v", err)
				}
			default:
				t.Error("Serve has returned before its session ended")
			}
			if _, err := s.Exec("c", nil, Options{}); err == nil {
				t.Error("Exec returns a URL after Serve has returned")
			}
		})
	}
}

func TestIdleTimeout(t *testing.T) {
	// The client must open its streams within this time.
	idleTimeout := patience.For(500 * time.Millisecond)
	for name, connect := range protocols {
		t.Run(name, func(t *testing.T) {
			ended := make(chan error, 1)
			s, _ := startServer(t, &fakeBackend{attach: func(ctx context.Context, _ container.Streams) error {
				<-ctx.Done()
				ended <- context.Cause(ctx)
				return context.Cause(ctx)
			}}, func(c *Config) { c.IdleTimeout = idleTimeout })
			u, err := s.Attach("c", allStreams)
			if err != nil {
				t.Fatal(err)
			}
			connect(t, u, allStreams)
			receive(t, ended)
		})
	}
}

func TestRefusedRequests(t *testing.T) {
	s, _ := startServer(t, &fakeBackend{})
	used := execURL(t, s, allStreams)
	for i, tc := range []struct {
		method, url string
		status      int
	}{
		{"GET", used, http.StatusBadRequest}, // not an upgrade
		{"GET", used, http.StatusNotFound},   // the token was used
		{"GET", strings.Replace(forwardURL(t, s, 80), "portforward", "exec", 1), http.StatusNotFound},
		{"PUT", execURL(t, s, allStreams), http.StatusMethodNotAllowed},
		{"GET", used[:strings.LastIndex(used, "/")] + "/0", http.StatusNotFound},
		{"GET", used[:strings.LastIndex(used, "/")] + "/", http.StatusNotFound},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tc.method, tc.url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		transport := &http.Transport{DisableKeepAlives: true}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != tc.status {
			t.Errorf("case %d: %s %s: got %s, want %d", i, tc.method, tc.url, resp.Status, tc.status)
		}
	}
}

package metrics

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// scrape returns the answer of the handler.
func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, Path, nil))
	if w.Code != http.StatusOK {
		t.Fatalf("got status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestHandlerRefusesOtherRequests(t *testing.T) {
	m, _ := newTestMetrics(t)
	for request, code := range map[string]int{"GET /": http.StatusNotFound, "POST /metrics": http.StatusMethodNotAllowed, "GET /debug/pprof/": http.StatusNotFound, "HEAD /metrics": http.StatusOK} {
		method, path, _ := strings.Cut(request, " ")
		w := httptest.NewRecorder()
		m.Handler().ServeHTTP(w, httptest.NewRequest(method, path, nil))
		if w.Code != code {
			t.Errorf("%s: got status %d, want %d", request, w.Code, code)
		}
	}
}

// unixClient returns a client of a server on a unix socket.
func unixClient(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
}

// getMetrics returns the body of the answer of a server.
func getMetrics(t *testing.T, client *http.Client, server string) (string, error) {
	t.Helper()
	resp, err := client.Get(server + Path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("got status %d, %v", resp.StatusCode, err)
	}
	return string(b), nil
}

// TestServeRetries checks that Serve survives failures, serves when it can listen, and returns when its context ends.
func TestServeRetries(t *testing.T) {
	m, _ := newTestMetrics(t)
	socket := filepath.Join(t.TempDir(), "m.sock")
	var attempts atomic.Int32
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	listening := make(chan net.Listener, 2)
	go func() {
		defer close(done)
		m.NewServer(Endpoint{Retry: time.Millisecond, Listen: func() (net.Listener, error) {
			if attempts.Add(1) < 3 {
				return nil, errors.New("address already in use")
			}
			l, err := net.Listen("unix", socket)
			if err == nil {
				listening <- l
			}
			return l, err
		}}).Serve(ctx)
	}()
	client := unixClient(socket)
	defer client.CloseIdleConnections()
	get := func() string {
		t.Helper()
		client.CloseIdleConnections()
		body, err := getMetrics(t, client, "http://localhost")
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
	first := <-listening
	if body := get(); !strings.Contains(body, `criserver_build_info{go_version="go`) {
		t.Errorf("got %.200s, want the metrics", body)
	}
	// A server that fails starts again.
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	<-listening
	get()
	cancel()
	<-done
	if _, err := net.Dial("unix", socket); err == nil {
		t.Error("after the end of Serve, the socket still accepts connections")
	}
}

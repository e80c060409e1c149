package metrics

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestUpdate moves a server to another socket, and turns TLS on for its connections.
func TestUpdate(t *testing.T) {
	m, _ := newTestMetrics(t)
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	never := func() (net.Listener, error) { return nil, errors.New("must not be called") }
	first, second := listen(), listen()
	s := m.NewServer(Endpoint{Listen: func() (net.Listener, error) { return first, nil }})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(ctx) }()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	if _, err := getMetrics(t, client, "http://"+first.Addr().String()); err != nil {
		t.Fatal(err)
	}
	s.Update(Endpoint{Listen: never}, second)
	if _, err := getMetrics(t, client, "http://"+second.Addr().String()); err != nil {
		t.Errorf("new socket: %v", err)
	}
	// The server uses the new socket only after it has closed the former one.
	if c, err := net.Dial("tcp", first.Addr().String()); err == nil {
		t.Errorf("the former socket accepts a connection from %s", c.LocalAddr())
	}

	// The client has an idle connection without TLS, which the server closes.
	ca := httptest.NewUnstartedServer(nil)
	ca.StartTLS()
	defer ca.Close()
	s.Update(Endpoint{Listen: never, TLS: &tls.Config{Certificates: ca.TLS.Certificates}}, nil) //nolint:gosec // the default version
	if resp, err := client.Get("http://" + second.Addr().String() + Path); err == nil {
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest { // the answer of net/http to a request without TLS
			t.Errorf("without TLS: got %s", resp.Status)
		}
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate())
	secure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}} //nolint:gosec // the default version
	defer secure.CloseIdleConnections()
	if body, err := getMetrics(t, secure, "https://"+second.Addr().String()); err != nil || !strings.Contains(body, "criserver_build_info") {
		t.Errorf("with TLS: got %.100q, %v", body, err)
	}
	cancel()
	<-done
	late := listen()
	s.Update(Endpoint{Listen: never}, late)
	if _, err := late.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("socket after the end of Serve: got %v, want a closed socket", err)
	}
}

// TestUpdateWithoutSocket moves a server that cannot listen.
func TestUpdateWithoutSocket(t *testing.T) {
	m, _ := newTestMetrics(t)
	failed := make(chan struct{}, 1)
	s := m.NewServer(Endpoint{Retry: time.Hour, Listen: func() (net.Listener, error) {
		failed <- struct{}{}
		return nil, errors.New("address already in use")
	}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(ctx) }()
	<-failed
	socket := filepath.Join(t.TempDir(), "m.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s.Update(Endpoint{}, l)
	client := unixClient(socket)
	defer client.CloseIdleConnections()
	if _, err := getMetrics(t, client, "http://localhost"); err != nil {
		t.Errorf("new socket: %v", err)
	}
	cancel()
	<-done
}

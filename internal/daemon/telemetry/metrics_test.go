package telemetry

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/criserver/criserver/config"
)

func TestListenMetrics(t *testing.T) {
	dir := t.TempDir()
	socket, file := filepath.Join(dir, "d", "m.sock"), filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second call replaces the socket that the first one leaves
		l, err := listenMetrics(config.Metrics{Address: socket})
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(socket)
		if err != nil || info.Mode() != os.ModeSocket|0o600 {
			t.Errorf("got %v, %v, want a socket with mode 600", info, err)
		}
		if _, err := listenMetrics(config.Metrics{Address: socket}); err == nil || !strings.Contains(err.Error(), "is served by another process") {
			t.Errorf("with a socket in use: got %v, want an error", err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := listenMetrics(config.Metrics{Address: file}); err == nil || !strings.Contains(err.Error(), "metrics.address: ") {
		t.Errorf("with a file: got %v, want an error that names the key", err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "content" {
		t.Errorf("the file was changed: %q, %v", b, err)
	}
}

// writePair writes a certificate that signs itself and its key, and returns their files.
func writePair(t *testing.T, name string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// TestMetricsTLS checks that with metrics.tls_client_ca only clients with a certificate of the authority can connect.
func TestMetricsTLS(t *testing.T) {
	cert, key := writePair(t, "server")
	ca, clientKey := writePair(t, "client")
	other, otherKey := writePair(t, "other")
	server, err := metricsTLS(config.Metrics{TLSCert: cert, TLSKey: key, TLSClientCA: ca})
	if err != nil {
		t.Fatal(err)
	}
	connect := func(clientCert, clientKey string) error {
		client := &tls.Config{InsecureSkipVerify: true} //nolint:gosec // the test is about the certificate of the client
		if clientCert != "" {
			pair, err := tls.LoadX509KeyPair(clientCert, clientKey)
			if err != nil {
				t.Fatal(err)
			}
			client.Certificates = []tls.Certificate{pair}
		}
		a, b := net.Pipe()
		go func() { _ = tls.Client(a, client).Handshake(); _, _ = a.Read(make([]byte, 1)); _ = a.Close() }()
		defer b.Close()
		return tls.Server(b, server).Handshake()
	}
	for name, tc := range map[string]struct {
		cert, key string
		accepted  bool
	}{"certificate of the authority": {ca, clientKey, true}, "other certificate": {other, otherKey, false}, "no certificate": {"", "", false}} {
		if err := connect(tc.cert, tc.key); (err == nil) != tc.accepted {
			t.Errorf("%s: got %v, want accepted: %t", name, err, tc.accepted)
		}
	}
	if _, err := metricsTLS(config.Metrics{TLSCert: cert, TLSKey: key, TLSClientCA: key}); err == nil || !strings.Contains(err.Error(), "metrics.tls_client_ca") {
		t.Errorf("with a key as the authority: got %v, want an error", err)
	}
}

// TestPrepareMetrics checks that a reload opens a new socket while the former one serves, keeps the former one if the
// new one cannot be opened or the files for TLS are not valid, and applies new certificates to the same socket.
func TestPrepareMetrics(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "1.sock"), filepath.Join(dir, "2.sock")
	cfg := config.Default()
	cfg.Metrics.Address = first
	_, server, err := NewMetrics(cfg, "1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(ctx)
	}()
	dial := func(address string) error {
		network := "tcp"
		if filepath.IsAbs(address) {
			network = "unix"
		}
		c, err := net.Dial(network, address)
		if err == nil {
			err = c.Close()
		}
		return err
	}
	eventually := func(what string, condition func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("timeout: %s", what)
			}
		}
	}
	eventually("the first socket serves", func() bool { return dial(first) == nil })
	before := cfg.Metrics
	reload := func(next config.Metrics) error {
		change, err := PrepareMetrics(before, next)
		if err == nil {
			change.Apply(server)
			before = next
		}
		return err
	}
	used, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := used.Addr().String()
	cert, key := writePair(t, "server")
	for name, next := range map[string]config.Metrics{
		"port in use": {Address: address}, "no certificate": {Address: "127.0.0.1:0", TLSCert: cert + ".none", TLSKey: key},
	} {
		if err := reload(next); err == nil || !strings.Contains(err.Error(), "metrics.") {
			t.Errorf("%s: got %v, want an error that names the key", name, err)
		}
	}
	if err := dial(first); err != nil {
		t.Errorf("after reloads that failed: %v", err)
	}
	if err := reload(config.Metrics{Address: second}); err != nil {
		t.Fatal(err)
	}
	if err := dial(second); err != nil { // without a wait: the socket is open before the reload ends
		t.Error(err)
	}
	eventually("the first socket is removed", func() bool { _, err := os.Stat(first); return os.IsNotExist(err) })
	if err := used.Close(); err != nil {
		t.Fatal(err)
	}
	if err := reload(config.Metrics{Address: address, TLSCert: cert, TLSKey: key}); err != nil {
		t.Fatal(err)
	}
	serial := func() string {
		c, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the test compares the certificates
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		return string(c.ConnectionState().PeerCertificates[0].Raw)
	}
	old := serial()
	cert, key = writePair(t, "other")
	if err := reload(config.Metrics{Address: address, TLSCert: cert, TLSKey: key}); err != nil {
		t.Fatal(err)
	}
	file, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	if got := serial(); got == old || got != string(file.Certificate[0]) {
		t.Error("after the reload, the server has another certificate than the configured one")
	}
	cancel()
	<-done
	if dial(address) == nil {
		t.Error("after the end the socket serves")
	}
}

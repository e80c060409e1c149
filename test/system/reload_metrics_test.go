package system

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// metricsPair writes a certificate that signs itself and its key to files, and returns a pool with the certificate.
func metricsPair(t *testing.T, cert, key string) *x509.CertPool {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	if err := errors.Join(os.WriteFile(key, keyPEM, 0o600), os.WriteFile(cert, certPEM, 0o600)); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return pool
}

// TestReloadMetrics moves the metrics from the socket to an address with TLS, rotates the certificate without a reload,
// and checks that a reload with an address in use changes nothing.
func TestReloadMetrics(t *testing.T) {
	n := newNode(t, "remetrics", 190)
	socket := filepath.Join(n.Dir, "run", "metrics.sock")
	used, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := used.Addr().String()
	cert, key := filepath.Join(n.Dir, "metrics.pem"), filepath.Join(n.Dir, "metrics.key")
	roots := metricsPair(t, cert, key)
	conf := fmt.Sprintf("[metrics]\naddress = %q\ntls_cert = %q\ntls_key = %q\n", address, cert, key)
	n.dropIn(t, "container.default_env = [\"CHANGED=1\"]\n"+conf)
	if out, err := n.reload(); err == nil || !strings.Contains(out, "metrics.address") {
		t.Errorf("reload with an address in use: got error %v, output %s, want the key", err, out)
	}
	if values, _ := scrape(t, unixClient(socket), "http://localhost/metrics"); len(values) == 0 {
		t.Error("after a reload that was refused, the socket has no metrics")
	}
	if err := used.Close(); err != nil {
		t.Fatal(err)
	}
	n.dropIn(t, conf)
	n.mustReload(t)
	secure := func(roots *x509.CertPool) *http.Client {
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots}}}
		t.Cleanup(c.CloseIdleConnections)
		return c
	}
	if values, _ := scrape(t, secure(roots), "https://"+address+"/metrics"); len(values) == 0 {
		t.Error("the new address has no metrics")
	}
	waitFor(t, "the socket is removed", func() bool { _, err := os.Stat(socket); return os.IsNotExist(err) })
	rotated := metricsPair(t, cert, key)
	if values, _ := scrape(t, secure(rotated), "https://"+address+"/metrics"); len(values) == 0 {
		t.Error("after the rotation of the certificate: no metrics")
	}
	if resp, err := secure(roots).Get("https://" + address + "/metrics"); err == nil {
		_ = resp.Body.Close()
		t.Error("the former certificate is valid after the rotation")
	}
	n.dropIn(t, "")
	n.mustReload(t)
	if values, _ := scrape(t, unixClient(socket), "http://localhost/metrics"); len(values) == 0 {
		t.Error("after a reload of the first configuration, the socket has no metrics")
	}
}

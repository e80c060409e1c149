package streaming

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.cert = &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, key := a.create(a.cert)
	a.key = key
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

// create returns a certificate and its key.
func (a *authority) create(template *x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	signer := a.key
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	return der, key
}

// issue returns a certificate for a server or a client.
func (a *authority) issue(serial int64) tls.Certificate {
	a.t.Helper()
	der, key := a.create(&x509.Certificate{
		SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// replace replaces a file, as a program that renews certificates does.
func replace(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func pemOf(t *testing.T, c tls.Certificate) (cert, key []byte) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// tlsServer is a streaming server with TLS and the files of its certificates.
type tlsServer struct {
	t       *testing.T
	address string
	options TLSOptions
}

func newTLSServer(t *testing.T, options TLSOptions) *tlsServer {
	t.Helper()
	dir := t.TempDir()
	s := &tlsServer{t: t, options: options}
	s.options.CertFile, s.options.KeyFile = filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	cert, key := pemOf(t, newAuthority(t).issue(1))
	replace(t, s.options.CertFile, cert)
	replace(t, s.options.KeyFile, key)
	config, err := TLSConfig(s.options)
	if err != nil {
		t.Fatal(err)
	}
	server, _ := startServer(t, &fakeBackend{}, func(c *Config) { c.TLS = config })
	u, err := url.Parse(execURL(t, server, Options{Stdout: true}))
	if err != nil {
		t.Fatal(err)
	}
	if u.Scheme != "https" {
		t.Errorf("the URL is %s, want https", u)
	}
	s.address = u.Host
	return s
}

// handshake connects with a client configuration. A server refuses the certificate of a TLS 1.3 client only after
// the client's part of the handshake, so handshake also reads.
func (s *tlsServer) handshake(client *tls.Config) (tls.ConnectionState, error) {
	s.t.Helper()
	client.InsecureSkipVerify = true
	c, err := tls.Dial("tcp", s.address, client)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer c.Close()
	if _, err := c.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
		return tls.ConnectionState{}, err
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		return tls.ConnectionState{}, err
	}
	return c.ConnectionState(), nil
}

func TestTLSVersions(t *testing.T) {
	for _, test := range []struct {
		min, client uint16
		accepted    bool
	}{
		{0, tls.VersionTLS11, false},
		{0, tls.VersionTLS12, true},
		{0, tls.VersionTLS13, true},
		{tls.VersionTLS13, tls.VersionTLS12, false},
		{tls.VersionTLS13, tls.VersionTLS13, true},
	} {
		s := newTLSServer(t, TLSOptions{MinVersion: test.min})
		state, err := s.handshake(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: test.client})
		if (err == nil) != test.accepted || err == nil && state.Version != test.client {
			t.Errorf("minimum %x, client %x: version %x, error %v", test.min, test.client, state.Version, err)
		}
	}
}

func TestTLSCipherSuites(t *testing.T) {
	const allowed, other = tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
	s := newTLSServer(t, TLSOptions{CipherSuites: []uint16{allowed}})
	client := func(suites ...uint16) *tls.Config {
		return &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: suites}
	}
	if state, err := s.handshake(client(other, allowed)); err != nil || state.CipherSuite != allowed {
		t.Errorf("suite %x, error %v; want suite %x", state.CipherSuite, err, allowed)
	}
	if _, err := s.handshake(client(other)); err == nil {
		t.Error("a client with another cipher suite is accepted")
	}
}

func TestTLSClientCertificates(t *testing.T) {
	trusted, foreign := newAuthority(t), newAuthority(t)
	file := filepath.Join(t.TempDir(), "ca")
	replace(t, file, trusted.pem())
	s := newTLSServer(t, TLSOptions{ClientCAFile: file})
	client := func(a *authority) *tls.Config {
		return &tls.Config{
			// Otherwise the client would send no certificate of an authority that the server does not name.
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				c := a.issue(2)
				return &c, nil
			},
			ClientSessionCache: tls.NewLRUClientSessionCache(1),
		}
	}
	if _, err := s.handshake(&tls.Config{}); err == nil {
		t.Error("a client without a certificate is accepted")
	}
	if _, err := s.handshake(client(foreign)); err == nil {
		t.Error("a client with a certificate of another authority is accepted")
	}
	known := client(trusted)
	if _, err := s.handshake(known); err != nil {
		t.Errorf("client with a certificate: %v", err)
	}

	replace(t, file, foreign.pem())
	if _, err := s.handshake(known); err == nil {
		t.Error("a client of the earlier authority is accepted after the file has changed")
	}
	if _, err := s.handshake(client(foreign)); err != nil {
		t.Errorf("client of the new authority: %v", err)
	}
}

// TestTLSFilesChange replaces the certificate and its key one after the other. Clients must be able to connect
// between the two steps.
func TestTLSFilesChange(t *testing.T) {
	s := newTLSServer(t, TLSOptions{})
	serial := func() int64 {
		t.Helper()
		state, err := s.handshake(&tls.Config{})
		if err != nil {
			t.Fatal(err)
		}
		return state.PeerCertificates[0].SerialNumber.Int64()
	}
	if n := serial(); n != 1 {
		t.Errorf("got certificate %d, want 1", n)
	}
	cert, key := pemOf(t, newAuthority(t).issue(7))
	replace(t, s.options.CertFile, cert)
	if n := serial(); n != 1 {
		t.Errorf("got certificate %d before its key exists, want 1", n)
	}
	replace(t, s.options.KeyFile, key)
	if n := serial(); n != 7 {
		t.Errorf("got certificate %d, want 7", n)
	}
	if err := os.Remove(s.options.KeyFile); err != nil {
		t.Fatal(err)
	}
	if n := serial(); n != 7 {
		t.Errorf("got certificate %d without a key file, want 7", n)
	}
}

func TestTLSFilesWithErrors(t *testing.T) {
	dir := t.TempDir()
	valid := newTLSServer(t, TLSOptions{}).options
	text := filepath.Join(dir, "text")
	replace(t, text, []byte("no certificate"))
	for name, o := range map[string]TLSOptions{
		"missing certificate": {CertFile: filepath.Join(dir, "none"), KeyFile: valid.KeyFile},
		"key as certificate":  {CertFile: valid.KeyFile, KeyFile: valid.KeyFile},
		"missing authorities": {CertFile: valid.CertFile, KeyFile: valid.KeyFile, ClientCAFile: filepath.Join(dir, "none")},
		"empty authorities":   {CertFile: valid.CertFile, KeyFile: valid.KeyFile, ClientCAFile: text},
	} {
		if _, err := TLSConfig(o); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

package streaming

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/sirupsen/logrus"
)

// TLSOptions has the files and the rules for connections with TLS.
type TLSOptions struct {
	// CertFile and KeyFile are PEM files with the certificate of the server and its private key.
	CertFile, KeyFile string
	// ClientCAFile is a PEM file with the certificates of authorities. If ClientCAFile is set, every client
	// must present a certificate that one of the authorities has signed.
	ClientCAFile string
	// MinVersion is the lowest version of TLS, as tls.VersionTLS12. 0 means TLS 1.2.
	MinVersion uint16
	// CipherSuites are the suites of TLS 1.2, or none for those that Go considers secure. They have no effect
	// on TLS 1.3.
	CipherSuites []uint16
}

// TLSConfig returns the TLS configuration of the server. It reads the files once to find errors early. For each
// connection it reads files that have changed again. While changed files cannot be used, for example because a
// certificate has been replaced and its key has not, connections use the content that was read before.
func TLSConfig(o TLSOptions) (*tls.Config, error) {
	f := &tlsFiles{options: o}
	config, err := f.load()
	if err != nil {
		return nil, err
	}
	f.config, f.versions = config, f.stat()
	listening := config.Clone()
	listening.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return f.current(), nil }
	return listening, nil
}

// tlsFiles has the configuration that was made from the files of TLSOptions.
type tlsFiles struct {
	options TLSOptions

	mu       sync.Mutex // guards the fields below
	config   *tls.Config
	versions []fileVersion // of the files that were read last, even if they could not be used
}

// fileVersion identifies the content of a file. The zero value stands for a file that does not exist.
type fileVersion struct {
	inode, device uint64
	size          int64
	mtime, ctime  syscall.Timespec
}

// current returns the configuration for a new connection.
func (f *tlsFiles) current() *tls.Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	versions := f.stat() // before the files are read: a later change is noticed at the next connection
	if equalVersions(versions, f.versions) {
		return f.config
	}
	f.versions = versions
	config, err := f.load()
	log := logrus.WithField("part", "streaming")
	if err != nil {
		log.WithError(err).Warn("cannot use the changed TLS files; the server continues with the earlier content")
		return f.config
	}
	log.WithField("certificate", f.options.CertFile).Info("changed TLS files loaded")
	f.config = config
	return config
}

func equalVersions(a, b []fileVersion) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// stat returns the versions of the files.
func (f *tlsFiles) stat() []fileVersion {
	paths := []string{f.options.CertFile, f.options.KeyFile, f.options.ClientCAFile}
	versions := make([]fileVersion, len(paths))
	for i, path := range paths {
		var st syscall.Stat_t
		if path != "" && syscall.Stat(path, &st) == nil {
			versions[i] = fileVersion{st.Ino, st.Dev, st.Size, st.Mtim, st.Ctim}
		}
	}
	return versions
}

// load reads the files.
func (f *tlsFiles) load() (*tls.Config, error) {
	o := f.options
	cert, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("load certificate of the server: %w", err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: o.MinVersion, CipherSuites: o.CipherSuites}
	if config.MinVersion == 0 {
		config.MinVersion = tls.VersionTLS12
	}
	if o.ClientCAFile == "" {
		return config, nil
	}
	if config.ClientCAs, err = loadAuthorities(o.ClientCAFile); err != nil {
		return nil, fmt.Errorf("load authorities for clients: %w", err)
	}
	config.ClientAuth = tls.RequireAndVerifyClientCert
	// A resumed session would not depend on the authorities that are valid now.
	config.SessionTicketsDisabled = true
	return config, nil
}

// loadAuthorities reads a PEM file with certificates of authorities.
func loadAuthorities(file string) (*x509.CertPool, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, errors.New(file + " contains no certificate in PEM format")
	}
	return pool, nil
}

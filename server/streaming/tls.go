package streaming

import (
	"crypto/tls"
	"fmt"
)

// TLS is the configuration for a certificate and its key, PEM files both. They
// are read anew for each connection, so that they can be replaced; that they
// can be read at all is found out here.
func TLS(certFile, keyFile string) (*tls.Config, error) {
	load := func() (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("certificate for streams: %w", err)
		}
		return &c, nil
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return load() },
	}, nil
}

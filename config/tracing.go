package config

import (
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// Tracing configures the export of traces.
type Tracing struct {
	Endpoint           string `toml:"endpoint" reload:"restart"`
	SamplingPerMillion int    `toml:"sampling_per_million" reload:"restart"`
	TLSCA              string `toml:"tls_ca" reload:"restart"`
	TLSCert            string `toml:"tls_cert" reload:"restart"`
	TLSKey             string `toml:"tls_key" reload:"restart"`
	Insecure           bool   `toml:"insecure" reload:"restart"`
}

// unixEndpoint is the prefix of an endpoint that is a unix socket.
const unixEndpoint = "unix://"

// UseTLS reports whether the connection to the collector is encrypted.
func (t *Tracing) UseTLS() bool {
	return t.TLSCA != "" || t.TLSCert != "" || !t.Insecure && !t.isLocal()
}

// isLocal reports whether the traffic to the endpoint does not leave the host.
func (t *Tracing) isLocal() bool {
	if strings.HasPrefix(t.Endpoint, unixEndpoint) {
		return true
	}
	host, _, err := net.SplitHostPort(t.Endpoint)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

func isEndpoint(s string) bool {
	if path, ok := strings.CutPrefix(s, unixEndpoint); ok {
		return filepath.IsAbs(path) && filepath.Clean(path) == path && len(path) <= maxSocketPath
	}
	host, port, err := net.SplitHostPort(s)
	n, portErr := strconv.ParseUint(port, 10, 16)
	return err == nil && host != "" && !strings.ContainsAny(host, "/ ") && portErr == nil && n > 0
}

func (c *Config) validateTracing(v *validator) {
	t := &c.Tracing
	v.require(t.Endpoint == "" || isEndpoint(t.Endpoint), "tracing.endpoint", "must be host:port or unix:///path, is %q", t.Endpoint)
	v.require(t.SamplingPerMillion >= 0 && t.SamplingPerMillion <= 1_000_000, "tracing.sampling_per_million", "must be from 0 to 1000000, is %d", t.SamplingPerMillion)
	v.optionalPath("tracing.tls_ca", t.TLSCA)
	v.optionalPath("tracing.tls_cert", t.TLSCert)
	v.optionalPath("tracing.tls_key", t.TLSKey)
	v.require((t.TLSCert == "") == (t.TLSKey == ""), "tracing.tls_key", "must be set if and only if tracing.tls_cert is set")
	v.require(!t.Insecure || t.TLSCA == "" && t.TLSCert == "", "tracing.insecure", "must not be set together with tracing.tls_ca or tracing.tls_cert")
}

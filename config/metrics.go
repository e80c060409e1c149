package config

import (
	"net/netip"
	"path/filepath"
)

// Metrics configures the HTTP server of the metrics.
type Metrics struct {
	Address     string `toml:"address" reload:"yes"`
	TLSCert     string `toml:"tls_cert" reload:"yes"`
	TLSKey      string `toml:"tls_key" reload:"yes"`
	TLSClientCA string `toml:"tls_client_ca" reload:"yes"`
}

// MetricsOff is the value of metrics.address with which the daemon has no metrics.
const MetricsOff = "off"

// metricsSocketName is the name of the socket of the metrics in run_dir.
const metricsSocketName = "metrics.sock"

// MetricsSocket returns the path of the socket of the metrics, or "" if metrics.address is not a path.
func (m Metrics) MetricsSocket() string {
	if filepath.IsAbs(m.Address) {
		return m.Address
	}
	return ""
}

func (c *Config) validateMetrics(v *validator) {
	m := &c.Metrics
	v.optionalPath("metrics.tls_cert", m.TLSCert)
	v.optionalPath("metrics.tls_key", m.TLSKey)
	v.optionalPath("metrics.tls_client_ca", m.TLSClientCA)
	v.require((m.TLSCert == "") == (m.TLSKey == ""), "metrics.tls_key", "must be set if and only if metrics.tls_cert is set")
	v.require(m.TLSClientCA == "" || m.TLSCert != "", "metrics.tls_client_ca", "needs metrics.tls_cert")
	switch {
	case m.Address == MetricsOff:
	case m.MetricsSocket() != "":
		v.socketPath("metrics.address", m.Address)
		v.require(m.Address != c.Socket, "metrics.address", "must not be the path of socket, is %q", m.Address)
		v.require(m.TLSCert == "", "metrics.tls_cert", "must not be set if metrics.address is the path of a socket, which only root can open")
	default:
		addr, err := netip.ParseAddrPort(m.Address)
		v.require(err == nil, "metrics.address", `must be the path of a socket, an IP address and a port, or "off"; is %q`, m.Address)
		v.require(err != nil || addr.Addr().IsLoopback() || m.TLSCert != "", "metrics.address", "must be a loopback address unless metrics.tls_cert is set, is %q", m.Address)
	}
}

// Package monitoring contains the tests of the alerts and of the dashboard in contrib. It is a separate Go module, so
// that the parser of Prometheus is no dependency of the daemon.
package monitoring

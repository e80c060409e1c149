package streaming

import (
	"crypto/tls"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// TestUpdate replaces the settings of a server. TLS cannot be turned on or off.
func TestUpdate(t *testing.T) {
	first, second := &tls.Config{ServerName: "first"}, &tls.Config{ServerName: "second"} //nolint:gosec // no connection uses them
	s := New(Config{IdleTimeout: time.Hour, TLS: first})
	listener := s.tlsConfig()
	if err := s.Update(time.Minute, second); err != nil || s.idleTimeout() != time.Minute {
		t.Errorf("got %v and timeout %s", err, s.idleTimeout())
	}
	if got, err := listener.GetConfigForClient(nil); err != nil || got != second {
		t.Errorf("configuration of a new connection: got %v, %v, want the second", got, err)
	}
	if err := s.Update(time.Second, nil); !errdefs.IsInvalidArgument(err) || s.idleTimeout() != time.Minute {
		t.Errorf("turn TLS off: got %v and timeout %s, want ErrInvalidArgument and no change", err, s.idleTimeout())
	}
	plain := New(Config{})
	if plain.tlsConfig() != nil {
		t.Error("a server without TLS has a TLS configuration")
	}
	if err := plain.Update(0, first); !errdefs.IsInvalidArgument(err) {
		t.Errorf("turn TLS on: got %v, want ErrInvalidArgument", err)
	}
}

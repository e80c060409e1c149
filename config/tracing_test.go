package config

import "testing"

func TestTracingTLS(t *testing.T) {
	for name, tc := range map[string]struct {
		tracing Tracing
		want    bool
	}{
		"IPv4 loopback":      {Tracing{Endpoint: "127.0.0.1:4317"}, false},
		"IPv6 loopback":      {Tracing{Endpoint: "[::1]:4317"}, false},
		"localhost":          {Tracing{Endpoint: "localhost:4317"}, false},
		"unix socket":        {Tracing{Endpoint: "unix:///run/collector.sock"}, false},
		"loopback with CA":   {Tracing{Endpoint: "127.0.0.1:4317", TLSCA: "/ca"}, true},
		"other host":         {Tracing{Endpoint: "collector.example:4317"}, true},
		"other address":      {Tracing{Endpoint: "10.0.0.1:4317"}, true},
		"host like loopback": {Tracing{Endpoint: "localhost.example:4317"}, true},
		"insecure":           {Tracing{Endpoint: "10.0.0.1:4317", Insecure: true}, false},
	} {
		if got := tc.tracing.UseTLS(); got != tc.want {
			t.Errorf("%s: TLS is %v, want %v", name, got, tc.want)
		}
	}
	c := Default()
	c.Tracing = Tracing{Endpoint: "10.0.0.1:4317", Insecure: true, TLSCA: "/ca"}
	v := &validator{}
	if c.validateTracing(v); len(v.errs) != 1 {
		t.Errorf("insecure with a CA: got errors %v, want one", v.errs)
	}
}

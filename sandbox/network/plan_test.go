package network

import (
	"fmt"
	"testing"
)

// TestPodList checks which plugins are executed for a pod.
func TestPodList(t *testing.T) {
	const list = `{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"bridge"},%s]}`
	ports, rates := Pod{PortMappings: []PortMapping{{HostPort: 1, ContainerPort: 1, Protocol: "tcp"}}}, Pod{Bandwidth: &Bandwidth{EgressRate: 1000}}
	tests := map[string]struct {
		plugin  string
		pod     Pod
		skipped bool
	}{
		"bandwidth":                        {`{"type":"bandwidth","capabilities":{"bandwidth":true}}`, Pod{}, true},
		"bandwidth of a single file":       {`{"type":"bandwidth","name":"n","cniVersion":"1.0.0"}`, Pod{}, true},
		"bandwidth by annotation":          {`{"type":"bandwidth","capabilities":{"bandwidth":true}}`, rates, false},
		"bandwidth with rates":             {`{"type":"bandwidth","ingressRate":1000,"ingressBurst":1000}`, Pod{}, false},
		"bandwidth in upper case":          {`{"type":"bandwidth","EGRESSRATE":1000,"EgressBurst":1000}`, Pod{}, false},
		"bandwidth with a runtimeConfig":   {`{"type":"bandwidth","runtimeConfig":{"bandwidth":{"ingressRate":1000,"ingressBurst":1000}}}`, Pod{}, false},
		"bandwidth with an unknown option": {`{"type":"bandwidth","shapeAll":true}`, Pod{}, false},
		"portmap":                          {`{"type":"portmap","snat":true,"capabilities":{"portMappings":true}}`, Pod{}, true},
		"portmap with conditions": {`{"type":"portmap","backend":"iptables","conditionsV4":["-s","10.0.0.0/8"],"conditionsV6":[],"masqAll":true,"markMasqBit":5,
			"externalSetMarkChain":"X","capabilities":{"portMappings":true}}`, Pod{}, true},
		"portmap for a pod with ports":     {`{"type":"portmap","capabilities":{"portMappings":true}}`, ports, false},
		"portmap with ports in the file":   {`{"type":"portmap","runtimeConfig":{"portMappings":[{"hostPort":1,"containerPort":1,"protocol":"tcp"}]}}`, Pod{}, false},
		"portmap with an unknown option":   {`{"type":"portmap","always":true}`, Pod{}, false},
		"tuning, which is always executed": {`{"type":"tuning"}`, Pod{}, false},
	}
	for name, tt := range tests {
		for _, noBuiltin := range []bool{false, true} {
			l, err := parseList(fmt.Appendf(nil, list, tt.plugin))
			if err != nil {
				t.Fatal(err)
			}
			want := 2
			if tt.skipped && !noBuiltin {
				want = 1
			}
			got, err := New(Config{NoBuiltin: noBuiltin}).podList(l, tt.pod)
			if err != nil || len(got.conf.Plugins) != want {
				t.Errorf("%s, noBuiltin %t: %d plugins, want %d, %v", name, noBuiltin, len(got.conf.Plugins), want, err)
			}
		}
	}
}

package podspec

import (
	"testing"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/sandbox/network"
)

func TestQuantity(t *testing.T) {
	for in, want := range map[string]uint64{
		"1000": 1000, "10M": 10e6, "1.5k": 1500, "2Ki": 2048, "1G": 1e9, "0": 0, "1e3": 1000, "1.5E+6": 15e5, "20000e-1": 2000, "1E": 1e18, "+1k": 1000,
	} {
		if got, ok := quantity(in); !ok || got != want {
			t.Errorf("%q: got %d, %t; want %d", in, got, ok, want)
		}
	}
	for _, in := range []string{"", "M", "10m", "1e", "e3", "1e3k", "1e-100", "1E99", "-1", "1MM", "1.2.3", "10 M", "999999999999P", "0x10", "1/2"} {
		if got, ok := quantity(in); ok {
			t.Errorf("%q: got %d, want an error", in, got)
		}
	}
}

func TestBandwidth(t *testing.T) {
	c := podConfig()
	if b := mustParse(t, c).Bandwidth; b != nil {
		t.Errorf("no annotation: got %+v", b)
	}
	c.Annotations = map[string]string{egressBandwidth: "1M"}
	if b := mustParse(t, c).Bandwidth; b == nil || *b != (network.Bandwidth{EgressRate: 1e6, EgressBurst: maxBurst}) {
		t.Errorf("egress: got %+v", b)
	}
	for _, value := range []string{"much", "999"} {
		c.Annotations[ingressBandwidth] = value
		if _, err := Parse(c, "", testNode()); !errdefs.IsInvalidArgument(err) {
			t.Errorf("ingress %q: got error %v", value, err)
		}
	}
}

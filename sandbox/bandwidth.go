package sandbox

import (
	"math"
	"math/big"
	"regexp"

	"github.com/criserver/criserver/sandbox/network"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The annotations by which Kubernetes asks for traffic shaping; the CRI has no
// field for it. Their values are bits per second.
const (
	ingressBandwidth = "kubernetes.io/ingress-bandwidth"
	egressBandwidth  = "kubernetes.io/egress-bandwidth"
)

// maxBurst bounds bursts at what the plugin takes, in bits, as no annotation
// does.
const maxBurst = math.MaxInt32

// bandwidth returns what the plugin of that name is to be told, or nil.
func bandwidth(c *cri.PodSandboxConfig) (*network.Bandwidth, error) {
	in, err := rate(c, ingressBandwidth)
	if err != nil {
		return nil, err
	}
	out, err := rate(c, egressBandwidth)
	if err != nil || in == 0 && out == 0 {
		return nil, err
	}
	b := &network.Bandwidth{IngressRate: in, EgressRate: out}
	if in > 0 {
		b.IngressBurst = maxBurst
	}
	if out > 0 {
		b.EgressBurst = maxBurst
	}
	return b, nil
}

func rate(c *cri.PodSandboxConfig, name string) (uint64, error) {
	value, ok := c.Annotations[name]
	if !ok {
		return 0, nil
	}
	n, ok := quantity(value)
	if !ok || n < 1000 {
		return 0, invalid("annotations["+name+"]", `%q is not a rate of at least 1k bits per second, as in "10M"`, value)
	}
	return n, nil
}

var multiples = map[string]int64{
	"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
	"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50, "Ei": 1 << 60,
}

// quantityForm has the number, and either its exponent or its unit.
var quantityForm = regexp.MustCompile(`^\+?([0-9.]{1,20})(?:([eE][+-]?[0-9]{1,2})|([kMGTPE]|[KMGTPE]i)?)$`)

// quantity reads a number in the notation of Kubernetes, without its units below 1.
func quantity(s string) (uint64, bool) {
	part := quantityForm.FindStringSubmatch(s)
	if part == nil {
		return 0, false
	}
	n, ok := new(big.Rat).SetString(part[1] + part[2])
	if !ok {
		return 0, false
	}
	n.Mul(n, new(big.Rat).SetInt64(multiples[part[3]]))
	whole := new(big.Int).Quo(n.Num(), n.Denom())
	return whole.Uint64(), whole.IsUint64()
}

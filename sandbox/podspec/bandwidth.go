package podspec

import (
	"math"
	"math/big"
	"regexp"

	"github.com/criserver/criserver/sandbox/network"
)

// Kubernetes requests traffic shaping with these annotations, because the CRI has no field for it. The values are bits
// per second.
const (
	ingressBandwidth = "kubernetes.io/ingress-bandwidth"
	egressBandwidth  = "kubernetes.io/egress-bandwidth"
)

// maxBurst is the burst of a shaped pod, in bits. No annotation sets the burst, so it is the
// maximum that the CNI plugin bandwidth accepts.
const maxBurst = math.MaxInt32

// bandwidth parses the annotations for traffic shaping.
func (p *parser) bandwidth() error {
	in, err := p.rate(ingressBandwidth)
	if err != nil {
		return err
	}
	out, err := p.rate(egressBandwidth)
	if err != nil || in == 0 && out == 0 {
		return err
	}
	b := &network.Bandwidth{IngressRate: in, EgressRate: out}
	if in > 0 {
		b.IngressBurst = maxBurst
	}
	if out > 0 {
		b.EgressBurst = maxBurst
	}
	p.spec.Bandwidth = b
	return nil
}

// rate returns the rate in an annotation, in bits per second, or 0 without the annotation.
func (p *parser) rate(annotation string) (uint64, error) {
	value, ok := p.config.Annotations[annotation]
	if !ok {
		return 0, nil
	}
	n, ok := quantity(value)
	if !ok || n < 1000 {
		return 0, invalid("annotations["+annotation+"]", `%q must be a rate of at least 1k bits per second, such as "10M"`, value)
	}
	return n, nil
}

var quantityUnits = map[string]int64{
	"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
	"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50, "Ei": 1 << 60,
}

// quantityPattern matches the number, and either its exponent or its unit.
var quantityPattern = regexp.MustCompile(`^\+?([0-9.]{1,20})(?:([eE][+-]?[0-9]{1,2})|([kMGTPE]|[KMGTPE]i)?)$`)

// quantity parses a quantity in the notation of Kubernetes, except for units below 1. It rounds down to an integer.
func quantity(s string) (uint64, bool) {
	part := quantityPattern.FindStringSubmatch(s)
	if part == nil {
		return 0, false
	}
	n, ok := new(big.Rat).SetString(part[1] + part[2])
	if !ok {
		return 0, false
	}
	n.Mul(n, new(big.Rat).SetInt64(quantityUnits[part[3]]))
	integer := new(big.Int).Quo(n.Num(), n.Denom())
	return integer.Uint64(), integer.IsUint64()
}

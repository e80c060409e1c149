// Package podcidr parses the address ranges that the kubelet sends for the pods of the node, and executes the template
// that makes a CNI configuration from the ranges. It writes no file.
package podcidr

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/containerd/errdefs"
)

const maxRanges = 16

// Parse parses a list of ranges that are separated by commas. The result has at least one range, and the bits of the
// ranges after their prefix are zero. The error is ErrInvalidArgument.
func Parse(list string) ([]netip.Prefix, error) {
	parts := strings.Split(list, ",")
	if len(parts) > maxRanges {
		return nil, fmt.Errorf("pod CIDR has %d ranges, more than %d: %w", len(parts), maxRanges, errdefs.ErrInvalidArgument)
	}
	out := make([]netip.Prefix, len(parts))
	for i, part := range parts {
		p, err := netip.ParsePrefix(part)
		if err != nil || p.Bits() == 0 || p.Addr().Is4In6() {
			return nil, fmt.Errorf("pod CIDR %q is not a range of addresses like 10.244.1.0/24: %w", part, errdefs.ErrInvalidArgument)
		}
		out[i] = p.Masked()
	}
	return out, nil
}

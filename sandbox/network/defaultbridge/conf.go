package defaultbridge

import (
	"encoding/json"
	"net/netip"
	"path/filepath"
)

// Conf returns the CNI configuration of the network of a bridge.
func (s *Store) Conf(b Bridge) (json.RawMessage, error) {
	type entry = map[string]any
	var ranges [][]entry
	var routes []entry
	for _, family := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		var set []entry // a pod gets one address of each set
		for _, r := range b.Ranges {
			if r.Addr().Is4() == family.Addr().Is4() {
				set = append(set, entry{"subnet": r.String()})
			}
		}
		if set != nil {
			ranges, routes = append(ranges, set), append(routes, entry{"dst": family.String()})
		}
	}
	return json.Marshal(entry{"cniVersion": "1.1.0", "name": b.Network(), "plugins": []entry{
		{
			"type": "bridge", "bridge": b.Bridge, "isGateway": true, "ipMasq": true, "ipMasqBackend": "nftables", "hairpinMode": true,
			"ipam": entry{"type": "host-local", "dataDir": filepath.Join(s.dir, "ipam"), "ranges": ranges, "routes": routes},
		},
		{"type": "portmap", "backend": "nftables", "snat": true, "capabilities": entry{"portMappings": true}},
	}})
}

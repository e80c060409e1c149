package podspec

import (
	"strings"
	"unicode"

	"github.com/containernetworking/cni/pkg/types"
)

const (
	maxDNS      = 1024 // elements of each list: servers, searches and options
	maxDNSEntry = 2048 // bytes; Kubernetes allows this size for all search domains of a pod together
)

// dns ensures that each entry stays within its line of the pod's resolv.conf. The form of the entries is not checked,
// because the kubelet copies them from the resolv.conf of a host.
func (p *parser) dns() error {
	d := p.config.DnsConfig
	if d == nil {
		return nil
	}
	p.spec.DNS = &types.DNS{Nameservers: d.Servers, Search: d.Searches, Options: d.Options}
	for _, f := range []struct {
		name   string
		values []string
	}{{"servers", d.Servers}, {"searches", d.Searches}, {"options", d.Options}} {
		field := "dns_config." + f.name
		if len(f.values) > maxDNS {
			return invalid(field, "has %d elements, more than %d", len(f.values), maxDNS)
		}
		for _, v := range f.values {
			if len(v) > maxDNSEntry || strings.ContainsFunc(v, unicode.IsControl) {
				return invalid(field, "%q must have at most %d bytes and no control characters", v, maxDNSEntry)
			}
		}
	}
	return nil
}

package podspec

import (
	"slices"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestDNS(t *testing.T) {
	// set returns a change that adds one server, one search domain and one option; "" for none.
	set := func(server, search, option string) func(*cri.PodSandboxConfig) {
		list := func(s string) []string {
			if s == "" {
				return nil
			}
			return []string{s}
		}
		return func(c *cri.PodSandboxConfig) {
			c.DnsConfig = &cri.DNSConfig{Servers: list(server), Searches: list(search), Options: list(option)}
		}
	}
	rules{
		"options":                {set("fe80::1%eth0", "a.b", "ndots:5"), ""},
		"server by name":         {set("ns.example", "", ""), ""},
		"server with a port":     {set("[::1]:53", "", ""), ""},
		"root as search domain":  {set("1.1.1.1", ".", "ndots:1"), ""},
		"comment in a search":    {set("1.1.1.1", "#", ";"), ""},
		"line break in a search": {set("1.1.1.1", "a\nnameserver 6.6.6.6", ""), "dns_config.searches"},
		"blank in an option":     {set("1.1.1.1", "a", "x y"), ""},
		"line break in option":   {set("1.1.1.1", "a", "x\ny"), "dns_config.options"},
		"40 servers": {func(c *cri.PodSandboxConfig) {
			c.DnsConfig = &cri.DNSConfig{Servers: slices.Repeat([]string{"::1"}, 40)}
		}, ""},
		"1025 servers": {func(c *cri.PodSandboxConfig) {
			c.DnsConfig = &cri.DNSConfig{Servers: slices.Repeat([]string{"::1"}, maxDNS+1)}
		}, "dns_config.servers has"},
		"empty entries": {func(c *cri.PodSandboxConfig) {
			c.DnsConfig = &cri.DNSConfig{Servers: []string{""}, Searches: []string{""}}
		}, ""},
	}.check(t, testNode())
	if spec := mustParse(t, podConfig()); spec.DNS != nil {
		t.Errorf("no dns_config: got %+v", spec.DNS)
	}
	c := podConfig()
	c.DnsConfig = &cri.DNSConfig{}
	if spec := mustParse(t, c); spec.DNS == nil {
		t.Error("empty dns_config: got nil")
	}
}

package system

import (
	"os"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestResolvConf(t *testing.T) {
	n := newNode(t, "resolv", 106)
	host, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		dns  *cri.DNSConfig
		want string
	}{
		"none":         {nil, string(host)},
		"empty":        {&cri.DNSConfig{}, ""},
		"servers":      {&cri.DNSConfig{Servers: []string{"10.0.0.1"}}, "nameserver 10.0.0.1\n"},
		"searches":     {&cri.DNSConfig{Searches: []string{"a.b", "."}}, "search a.b .\n"},
		"options":      {&cri.DNSConfig{Options: []string{"ndots:5", "rotate"}}, "options ndots:5 rotate\n"},
		"link address": {&cri.DNSConfig{Servers: []string{"fe80::1%eth0", "::1"}}, "nameserver fe80::1%eth0\nnameserver ::1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			c := podConfig("dns" + strings.ReplaceAll(name, " ", ""))
			c.DnsConfig = tc.dns
			p := n.RunPod(t, c)
			id := n.run(t, p, "c", "sleep", "1000")
			if got := n.Exec(t, id, "cat", "/etc/resolv.conf"); got != strings.TrimRight(tc.want, "\n") {
				t.Errorf("/etc/resolv.conf: got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestHostNames(t *testing.T) {
	n := newNode(t, "names", 107)
	hostName, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("a", 63)
	for name, tc := range map[string]struct{ hostname, want string }{
		"short": {"web-0", "web-0"}, "qualified": {"web-0.web.ns.svc.cluster.local", "web-0.web.ns.svc.cluster.local"},
		"dot": {"web-0.web.ns.svc.", "web-0.web.ns.svc."}, "64": {long + "b", long + "b"},
		"63": {long, long}, "none": {"", ""}, "host": {"ignored", hostName},
	} {
		t.Run(name, func(t *testing.T) {
			c := podConfig("name" + name)
			c.Hostname = tc.hostname
			if name == "host" {
				c.Linux.SecurityContext.NamespaceOptions.Network = cri.NamespaceMode_NODE
			}
			p := n.RunPod(t, c)
			if name == "none" {
				tc.want = p.ID[:12]
			}
			id := n.run(t, p, "c", "sleep", "1000")
			if got := n.Exec(t, id, "sh", "-c", "hostname; cat /etc/hostname"); got != tc.want+"\n"+tc.want {
				t.Errorf("hostname and /etc/hostname: got %q, want %q twice", got, tc.want)
			}
			if name == "host" {
				return
			}
			hosts, names := n.Exec(t, id, "cat", "/etc/hosts"), tc.want
			if short, _, ok := strings.Cut(tc.want, "."); ok {
				names += "\t" + short
			}
			if name == "dot" {
				names = "web-0.web.ns.svc\tweb-0.web.ns.svc.\tweb-0"
			}
			for _, ip := range n.podIPs(t, p.ID) {
				if !strings.Contains(hosts+"\n", ip+"\t"+names+"\n") {
					t.Errorf("/etc/hosts: got %q, want %s with %q", hosts, ip, names)
				}
			}
		})
	}
}

package inspect

import (
	"context"
	"errors"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
)

// readIPTables reads the table nat of both families, as the plugins portmap, bridge and ptp fill it. A host without
// iptables has no such rules.
func (r *Rules) readIPTables(ctx context.Context) error {
	var errs []error
	for _, program := range []string{"iptables-save", "ip6tables-save"} {
		out, err := listRules(ctx, program, "-t", "nat")
		switch {
		case errors.Is(err, exec.ErrNotFound):
		case err != nil:
			errs = append(errs, err)
		default:
			r.addIPTables(string(out))
		}
	}
	return errors.Join(errs...)
}

// addIPTables adds the rules of iptables-save. A rule in POSTROUTING selects the source address and jumps to a chain of
// the plugin, which masquerades. The rules of a chain to which no rule jumps have no effect.
func (r *Rules) addIPTables(save string) {
	sources := make(map[string][]netip.Prefix) // by chain
	called := make(map[string]bool)            // chains to which a rule jumps
	for line := range strings.Lines(save) {
		rule := parseRule(line)
		called[rule.target] = true
		if rule.chain == "POSTROUTING" && rule.source.IsValid() && rule.target != "MASQUERADE" {
			sources[rule.target] = append(sources[rule.target], rule.source)
		}
	}
	for line := range strings.Lines(save) {
		rule := parseRule(line)
		switch rule.target {
		case "DNAT":
			host := netip.Addr{}
			if rule.dst.IsValid() && !rule.dstNot {
				host = rule.dst.Addr()
			}
			if rule.to.IsValid() && rule.port != 0 && (called[rule.chain] || rule.chain == "PREROUTING") {
				r.HostPorts = append(r.HostPorts, HostPortRule{
					Protocol: rule.protocol, Host: host, HostPort: rule.port,
					Pod: rule.to.Addr(), PodPort: rule.to.Port(), Chain: "nat " + rule.chain, By: IPTables,
				})
			}
		case "MASQUERADE":
			from := sources[rule.chain]
			if rule.source.IsValid() {
				from = []netip.Prefix{rule.source}
			}
			for _, s := range from {
				m := MasqueradeRule{Source: s, Chain: "nat " + rule.chain, By: IPTables}
				if rule.dst.IsValid() && rule.dstNot && rule.dst.Addr().Is4() == s.Addr().Is4() {
					m.Except = []netip.Prefix{rule.dst}
				}
				r.Masquerade = append(r.Masquerade, m)
			}
		}
	}
}

// iptablesRule is a line of iptables-save that begins with -A.
type iptablesRule struct {
	chain, target, protocol string
	source, dst             netip.Prefix
	dstNot                  bool
	port                    uint16
	to                      netip.AddrPort
}

// parseRule parses a line. It ignores unknown options, and the words of quoted comments.
func parseRule(line string) iptablesRule {
	var r iptablesRule
	f := strings.Fields(outsideQuotes(line))
	if len(f) < 2 || f[0] != "-A" {
		return r
	}
	r.chain = f[1]
	for i := 2; i+1 < len(f); i++ {
		value := f[i+1]
		switch f[i] {
		case "-s":
			r.source = iptablesPrefix(value)
		case "-d":
			r.dst, r.dstNot = iptablesPrefix(value), f[i-1] == "!"
		case "-p":
			r.protocol = value
		case "--dport":
			n, _ := strconv.ParseUint(value, 10, 16) // 0 for a range, which the plugin does not use
			r.port = uint16(n)
		case "-j", "-g":
			r.target = value
		case "--to-destination":
			r.to, _ = netip.ParseAddrPort(value)
		}
	}
	return r
}

func iptablesPrefix(s string) netip.Prefix {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen())
	}
	return netip.Prefix{}
}

// outsideQuotes replaces quoted text by an underscore.
func outsideQuotes(s string) string {
	var b strings.Builder
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			if quoted = !quoted; quoted {
				b.WriteByte('_')
			}
		case !quoted:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

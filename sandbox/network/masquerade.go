package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/sirupsen/logrus"
)

// Masquerading is the costliest thing that plugins do for a pod: the bridge
// plugin starts nft or iptables four to nine times to add the rule of a pod,
// and a dozen times to remove it again. One rule for the whole subnet says the
// same. So where the subnets are known from the configuration, the daemon keeps
// one nftables table per network, and tells the plugin to leave it alone.

// nftTimeout bounds a call of nft. A call takes a few milliseconds on an idle
// machine; under emulation, the first one, which loads kernel modules, takes
// more than five seconds.
const nftTimeout = time.Minute

// masquerade is the table of one network.
type masquerade struct {
	table   string
	subnets []netip.Prefix
}

// bridgeConf is what counts of a plugin's configuration.
type bridgeConf struct {
	IPMasq  bool   `json:"ipMasq"`
	Backend string `json:"ipMasqBackend"`
	IPAM    struct {
		Type   string     `json:"type"`
		Subnet string     `json:"subnet"`
		Ranges [][]subnet `json:"ranges"`
	} `json:"ipam"`
	// A file that has these can name subnets in them.
	RuntimeConfig json.RawMessage `json:"runtimeConfig"`
	Args          json.RawMessage `json:"args"`
}

type subnet struct {
	Subnet string `json:"subnet"`
}

// masqueradeOf returns the table that can stand in for a plugin's own rules, or
// nil where the plugin has to do it: it does not masquerade, is told to use
// iptables, or its subnets are not in its configuration.
func masqueradeOf(network string, p *libcni.PluginConfig) *masquerade {
	var c bridgeConf
	if p.Network.Type != "bridge" && p.Network.Type != "ptp" || json.Unmarshal(p.Bytes, &c) != nil {
		return nil
	}
	if !c.IPMasq || c.Backend == "iptables" || c.IPAM.Type != "host-local" || c.RuntimeConfig != nil || c.Args != nil {
		return nil
	}
	m := &masquerade{table: "criserver_masquerade_" + network}
	sets := c.IPAM.Ranges
	if c.IPAM.Subnet != "" {
		sets = append(sets, []subnet{{c.IPAM.Subnet}})
	}
	for _, set := range sets {
		for _, s := range set {
			prefix, err := netip.ParsePrefix(s.Subnet)
			if err != nil {
				return nil
			}
			m.subnets = append(m.subnets, prefix.Masked())
		}
	}
	if len(m.subnets) == 0 {
		return nil
	}
	return m
}

// takeMasquerade makes the daemon do the masquerading of a list, if it can.
func (l *list) takeMasquerade(ctx context.Context, within time.Duration) error {
	conf := *l.conf
	conf.Plugins = make([]*libcni.PluginConfig, len(l.conf.Plugins))
	var found *masquerade
	for i, p := range l.conf.Plugins {
		conf.Plugins[i] = p
		m := masqueradeOf(conf.Name, p)
		if m == nil || found != nil {
			continue
		}
		off, err := libcni.InjectConf(p, map[string]any{"ipMasq": false})
		if err != nil {
			return err
		}
		conf.Plugins[i], found = off, m
	}
	if found == nil {
		return nil
	}
	if err := found.apply(ctx, within); err != nil {
		l.masqueradeFailed = true
		return err
	}
	raw, err := inline(&conf)
	if err != nil {
		return err
	}
	taken, err := fromRaw(raw)
	if err != nil {
		return err
	}
	l.conf, l.planned, l.masquerade = taken.conf, taken.raw, found
	return nil
}

// script replaces the table as a whole, in one transaction.
func (m *masquerade) script() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "add table inet %[1]s\ndelete table inet %[1]s\nadd table inet %[1]s\n", m.table)
	fmt.Fprintf(&b, "add chain inet %s postrouting { type nat hook postrouting priority srcnat; }\n", m.table)
	for _, s := range m.subnets {
		family, multicast := "ip", "224.0.0.0/4"
		if s.Addr().Is6() {
			family, multicast = "ip6", "ff00::/8"
		}
		fmt.Fprintf(&b, "add rule inet %s postrouting %s saddr %s %s daddr != { %s, %s } masquerade\n", m.table, family, s, family, s, multicast)
	}
	return b.Bytes()
}

func (m *masquerade) apply(ctx context.Context, within time.Duration) error {
	return nftWithin(ctx, within, m.script(), "-f", "-")
}

// ensure restores the table after somebody has flushed the rule set.
func (m *masquerade) ensure(ctx context.Context) {
	there, err := tableExists(ctx, m.table)
	if there {
		return
	}
	log := logrus.WithContext(ctx).WithField("table", m.table)
	if err == nil {
		log.Warn("masquerading was gone and is restored")
		err = m.apply(ctx, nftTimeout)
	}
	if err != nil && ctx.Err() == nil {
		log.WithError(err).Error("masquerading could not be checked or restored")
	}
}

// tableExists reports whether nft lists a table. An error says that nft did not
// end in time: the table may exist then.
func tableExists(ctx context.Context, name string) (bool, error) {
	err := nft(ctx, nil, "list", "table", "inet", name)
	if errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return false, err
	}
	return err == nil, nil
}

func nft(ctx context.Context, stdin []byte, args ...string) error {
	return nftWithin(ctx, nftTimeout, stdin, args...)
}

// nftWithin runs nft. If nft does not end within the given time, it is killed and
// the error is context.DeadlineExceeded.
func nftWithin(ctx context.Context, within time.Duration, stdin []byte, args ...string) error {
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	cmd := exec.CommandContext(limited, nftPath(), args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var words bounded
	cmd.Stdout, cmd.Stderr = nil, &words
	err := runTied(cmd)
	if err == nil {
		return nil
	}
	name := "nft " + strings.Join(args, " ")
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", name, context.Cause(ctx))
	case limited.Err() != nil:
		return fmt.Errorf("%s has not ended within %s: %w", name, within, limited.Err())
	}
	return errors.Join(fmt.Errorf("%s: %w", name, err), errors.New(quote(words.kept.Bytes())))
}

// nftPath finds nft also where services have a short PATH.
func nftPath() string {
	for _, name := range []string{"nft", "/usr/sbin/nft", "/sbin/nft"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return "nft"
}

package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Bridge returns the configuration of a CNI network like the network of `docker run`:
// a bridge with masquerading and host ports. The leases are below the directory
// of the daemon.
func (d *Daemon) Bridge(name string, subnets ...string) string {
	d.bridges = append(d.bridges, name)
	ranges, routes := make([]string, len(subnets)), make([]string, len(subnets))
	for i, s := range subnets {
		ranges[i] = fmt.Sprintf(`[{"subnet": %q}]`, s)
		routes[i] = `{"dst": "0.0.0.0/0"}`
		if strings.Contains(s, ":") {
			routes[i] = `{"dst": "::/0"}`
		}
	}
	return fmt.Sprintf(`{
  "cniVersion": "1.1.0",
  "name": %q,
  "plugins": [
    {
      "type": "bridge", "bridge": %q, "isGateway": true, "ipMasq": true, "hairpinMode": true,
      "ipam": {"type": "host-local", "dataDir": %q, "ranges": [%s], "routes": [%s]}
    },
    {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}
  ]
}
`, name, name, d.path("leases"), strings.Join(ranges, ", "), strings.Join(routes, ", "))
}

// RemoveNetworks removes the bridges of Bridge and their nftables tables, which
// a daemon leaves for the next one on the same network. Afterwards another daemon
// can use their addresses, and listing all rules remains fast.
func (d *Daemon) RemoveNetworks() error {
	return In(d.NetNS, func() error {
		out, err := exec.Command("nft", "list", "tables").Output()
		if err != nil {
			return fmt.Errorf("list nftables tables: %w", err)
		}
		var errs []error
		for _, name := range d.bridges {
			errs = append(errs, removeNetwork(name, string(out)))
		}
		return errors.Join(errs...)
	})
}

func removeNetwork(name, tables string) error {
	var errs []error
	for line := range strings.Lines(tables) {
		table := strings.Fields(line) // table, family, name
		if len(table) != 3 || !strings.HasSuffix(table[2], "_"+name) {
			continue
		}
		if out, err := exec.Command("nft", "delete", "table", table[1], table[2]).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("remove table %s: %w: %s", table[2], err, out))
		}
	}
	if _, err := os.Stat("/proc/thread-self/net/dev_snmp6/" + name); err != nil {
		return errors.Join(errs...) // the bridge is created with the first pod
	}
	if out, err := exec.Command("ip", "link", "del", name).CombinedOutput(); err != nil {
		errs = append(errs, fmt.Errorf("remove bridge %s: %w: %s", name, err, out))
	}
	return errors.Join(errs...)
}

// Package bridge does the work of the CNI plugins bridge and host-local without starting a process. The plugins use a
// dozen milliseconds of CPU time for a dozen netlink messages. The package takes the same configuration, returns the
// same results and keeps the leases in the same files, so that the plugins can detach a pod that the package has
// attached, and the other way round. The package handles only the options that pods usually need; for every other
// configuration the caller executes the plugins.
package bridge

import (
	"context"

	"github.com/criserver/criserver/internal/oplock"
)

// Call is a call of a plugin as the CNI specification defines it.
type Call struct {
	Command     string // CNI_COMMAND
	ContainerID string // CNI_CONTAINERID
	NetNS       string // CNI_NETNS
	IfName      string // CNI_IFNAME
	Stdin       []byte // the network configuration
}

// Plugin executes calls. The zero value is ready to use.
type Plugin struct {
	leaseLocks oplock.Locks // by lease directory; held while leases change
}

// Handles reports whether the package can attach pods with a configuration, so that the plugins need not be installed.
func Handles(conf []byte) bool {
	c := parse(conf)
	return c != nil && c.ranges != nil
}

// Run executes a call and returns what the plugin would write to stdout. If handled is false, the package does not
// handle the configuration or the command, and the caller must execute the plugin.
func (p *Plugin) Run(ctx context.Context, call Call) (stdout []byte, handled bool, err error) {
	c := parse(call.Stdin)
	if c == nil {
		return nil, false, nil
	}
	switch call.Command {
	case "ADD":
		if c.ranges == nil {
			return nil, false, nil
		}
		stdout, err = p.add(ctx, c, call)
	case "DEL":
		err = p.del(ctx, c, call)
	case "CHECK":
		err = check(c, call)
	case "GC":
		err = p.gc(ctx, c)
	case "STATUS": // the package has no requirements that could be missing
	default:
		return nil, false, nil
	}
	return stdout, true, err
}

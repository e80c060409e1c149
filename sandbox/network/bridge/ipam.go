package bridge

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/allocator"
)

// reserve leases one address from each set of ranges. If reserve fails, it frees the addresses.
func (p *Plugin) reserve(ctx context.Context, c *conf, id, ifName string) ([]lease, error) {
	dir := c.leaseDir()
	if err := os.MkdirAll(string(dir), 0o755); err != nil {
		return nil, err
	}
	unlock, err := dir.lock(ctx, &p.leaseLocks)
	if err != nil {
		return nil, err
	}
	defer unlock()
	leases := make([]lease, 0, len(c.ranges))
	for i := range c.ranges {
		ip, err := allocator.NewIPAllocator(&c.ranges[i], lockedStore{dir}, i).Get(id, ifName, nil)
		if err != nil {
			return nil, errors.Join(err, dir.remove(names(leases), isOwner(owner(id, ifName))))
		}
		gateway, _ := netip.AddrFromSlice(ip.Gateway)
		leases = append(leases, lease{prefixOf(ip.Address), gateway.Unmap()})
	}
	return leases, nil
}

// free frees the addresses of an interface after a failed ADD.
func (p *Plugin) free(ctx context.Context, c *conf, call Call, leases []lease) error {
	dir := c.leaseDir()
	unlock, err := dir.lock(ctx, &p.leaseLocks)
	if err != nil {
		return err
	}
	defer unlock()
	return dir.remove(names(leases), isOwner(owner(call.ContainerID, call.IfName)))
}

// freeAll frees the addresses of a pod. It searches for them before it takes the lock: a pod
// without an address, for example after an ADD that did not get the lock, must not wait for the
// lock again. No other call can lease an address to the pod meanwhile. leases are the addresses in
// the result of ADD; hasResult is false if there is no result.
func (p *Plugin) freeAll(ctx context.Context, c *conf, call Call, leases []lease, hasResult bool) error {
	dir, full := c.leaseDir(), owner(call.ContainerID, call.IfName)
	// Old versions of host-local wrote only the container id.
	match := func(o string) bool { return o == full || o == call.ContainerID }
	found, err := dir.find(names(leases), match)
	if err == nil && (!hasResult || c.ranges == nil || len(found) < len(c.ranges)) {
		var all []string
		if all, err = dir.all(); err == nil {
			found, err = dir.find(all, match)
		}
	}
	if err != nil {
		return err
	}
	return p.removeFound(ctx, dir, found, match)
}

// gc frees the addresses of all interfaces that are not in the list of valid attachments.
func (p *Plugin) gc(ctx context.Context, c *conf) error {
	valid := make(map[string]bool)
	for _, list := range [][]types.GCAttachment{c.ValidAttachments, c.Attachments} {
		for _, a := range list {
			valid[owner(a.ContainerID, a.IfName)] = true
			valid[a.ContainerID] = true // old versions of host-local wrote only the container id
		}
	}
	dir, match := c.leaseDir(), func(o string) bool { return !valid[o] }
	all, err := dir.all()
	if err == nil {
		all, err = dir.find(all, match)
	}
	if err == nil {
		err = p.removeFound(ctx, dir, all, match)
	}
	if err != nil {
		return fmt.Errorf("free the addresses of removed pods: %w", err)
	}
	return nil
}

// removeFound removes leases that find has returned, if match still selects their owner under the lock.
func (p *Plugin) removeFound(ctx context.Context, dir leaseDir, found []string, match func(owner string) bool) error {
	if len(found) == 0 {
		return nil
	}
	unlock, err := dir.lock(ctx, &p.leaseLocks)
	if err != nil {
		return err
	}
	defer unlock()
	return dir.remove(found, match)
}

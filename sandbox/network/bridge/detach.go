package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/sirupsen/logrus"
	"github.com/vishvananda/netlink"
)

// del detaches a pod from the bridge and frees its addresses.
func (p *Plugin) del(ctx context.Context, c *conf, call Call) error {
	host, leases, hasResult := previous(c)
	if err := detach(ctx, call, host); err != nil {
		return err
	}
	if err := p.freeAll(ctx, c, call, leases, hasResult); err != nil {
		return fmt.Errorf("free addresses: %w", err)
	}
	return nil
}

// detach takes the pod off the bridge and makes sure that the veth pair is deleted.
func detach(ctx context.Context, call Call, host hostLink) error {
	detached, err := detachHost(ctx, host)
	if detached || err != nil || call.NetNS == "" {
		return err
	}
	// The interface of the host is not known, for example after a failed ADD, or it is not the interface of this pod.
	err = namespace.RunInNet(call.NetNS, func() error { return deleteVeth(call.IfName) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// deleteDelay is the time that the kernel has to delete the veth pair together with the network
// namespace of the pod. The kernel deletes many pairs in one step, while each separate deletion of
// an interface waits several times for all CPUs.
const deleteDelay = 2 * time.Second

// detachedAlias is the alias of the host's end of a veth pair after DEL.
const detachedAlias = "criserver: detached"

// detachHost takes the interface of the host off the bridge. After deleteDelay it deletes the
// interface if the interface still exists: a process that has joined the network namespace, or a
// copy of the bind mount of the namespace in another mount namespace, can keep the namespace and
// the veth pair for ever. detached is false if there is no such interface.
func detachHost(ctx context.Context, host hostLink) (detached bool, err error) {
	if host.name == "" {
		return false, nil
	}
	h, err := openNetlink()
	if err != nil {
		return false, err
	}
	l, err := linkByName(h, host.name)
	// The interface of another pod may have got the name since then.
	if err == nil && (l.Type() != "veth" || l.Attrs().HardwareAddr.String() != host.mac) {
		h.Close()
		return false, nil
	}
	if err == nil {
		err = h.LinkSetAlias(l, detachedAlias) // for DeleteDetached
	}
	if err == nil {
		err = h.LinkSetNoMaster(l)
	}
	if err == nil {
		err = h.LinkSetDown(l)
	}
	if err != nil {
		h.Close()
		if isNoLink(err) {
			return false, nil
		}
		return false, fmt.Errorf("take interface %s off the bridge: %w", host.name, err)
	}
	// The handle stays in the network namespace in which it was opened.
	time.AfterFunc(deleteDelay, func() {
		defer h.Close()
		// LinkDel deletes by index, and the kernel does not reuse the index for another interface.
		if err := h.LinkDel(l); err != nil && !isNoLink(err) {
			logrus.WithContext(ctx).WithError(err).WithField("interface", host.name).Warn("failed to delete the interface of a detached pod")
		}
	})
	return true, nil
}

// DeleteDetached deletes the interfaces that DEL has removed from their bridges and that still exist. The daemon calls
// DeleteDetached when it starts and when it stops, because DEL deletes an interface only after deleteDelay, and the
// daemon may end earlier.
func DeleteDetached() error {
	h, err := openNetlink()
	if err != nil {
		return err
	}
	defer h.Close()
	all, err := links(h)
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range all {
		a := l.Attrs()
		if l.Type() != "veth" || a.Alias != detachedAlias || a.MasterIndex != 0 || a.Flags&net.FlagUp != 0 {
			continue
		}
		if err := h.LinkDel(l); err != nil && !isNoLink(err) {
			errs = append(errs, fmt.Errorf("delete interface %s: %w", a.Name, err))
		}
	}
	return errors.Join(errs...)
}

// deleteVeth deletes a veth interface in the network namespace of the calling thread. The kernel deletes the other
// interface of the pair with it. deleteVeth keeps interfaces of other types.
func deleteVeth(name string) error {
	h, err := openNetlink()
	if err != nil {
		return err
	}
	defer h.Close()
	var l netlink.Link
	if l, err = linkByName(h, name); err == nil && l.Type() == "veth" {
		err = h.LinkDel(l)
	}
	if err != nil && !isNoLink(err) {
		return fmt.Errorf("delete interface %s: %w", name, err)
	}
	return nil
}

// hostLink is the interface of the host in a result.
type hostLink struct{ name, mac string }

// previous returns the interface of the host and the addresses in the result of ADD. ok is false if the configuration
// has no result, for example after a failed ADD.
func previous(c *conf) (host hostLink, leases []lease, ok bool) {
	if len(c.PrevResult) == 0 {
		return hostLink{}, nil, false
	}
	raw, err := create.CreateFromBytes(withVersion(c.PrevResult, c.CNIVersion))
	if err != nil {
		return hostLink{}, nil, false
	}
	res, err := types100.NewResultFromResult(raw)
	if err != nil || len(res.IPs) == 0 {
		return hostLink{}, nil, false
	}
	for _, ip := range res.IPs {
		if addr := prefixOf(ip.Address); addr.IsValid() {
			leases = append(leases, lease{addr: addr})
		}
	}
	if len(res.Interfaces) > hostInterface && res.Interfaces[hostInterface].Sandbox == "" {
		host = hostLink{res.Interfaces[hostInterface].Name, res.Interfaces[hostInterface].Mac}
	}
	return host, leases, true
}

// withVersion returns the result with the version of the configuration if the result has no version.
func withVersion(result json.RawMessage, version string) []byte {
	fields := map[string]json.RawMessage{}
	if json.Unmarshal(result, &fields) != nil || fields["cniVersion"] != nil {
		return result
	}
	fields["cniVersion"], _ = json.Marshal(version)
	out, err := json.Marshal(fields)
	if err != nil {
		return result
	}
	return out
}

package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/criserver/criserver/internal/rtnl"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// del takes a pod off the bridge and frees its addresses.
func (p *Plugin) del(ctx context.Context, c *conf, call Call) error {
	host, ls, known := previous(c)
	if err := unplug(ctx, call, host); err != nil {
		return err
	}
	if err := p.freeAll(ctx, c, call, ls, known); err != nil {
		return fmt.Errorf("free addresses: %w", err)
	}
	return nil
}

// freeAll looks for the addresses of a pod before it takes the lock: a pod that has
// none, as after an ADD that got no lock, must not wait for the lock again. No other
// call can give the pod an address meanwhile.
func (p *Plugin) freeAll(ctx context.Context, c *conf, call Call, ls []lease, known bool) error {
	store, own := leasesOf(c), owner(call.ContainerID, call.IfName)
	mine := func(o string) bool { return o == own || o == call.ContainerID } // the latter in files of old versions
	found, err := store.find(names(ls), mine)
	if err == nil && (!known || len(found) < len(c.IPAM.Ranges)) {
		var all []string
		if all, err = store.all(); err == nil {
			found, err = store.find(all, mine)
		}
	}
	if err != nil || len(found) == 0 {
		return err
	}
	unlock, err := store.lock(ctx, &p.turns)
	if err != nil {
		return err
	}
	defer unlock()
	return store.drop(found, mine)
}

// unplug takes the pod off the bridge and sees to it that the pair of interfaces is deleted.
func unplug(ctx context.Context, call Call, host link) error {
	off, err := unplugHost(ctx, host)
	if off || err != nil || call.NetNS == "" {
		return err
	}
	// The host's end is not known, as after an ADD that failed, or not the one that
	// is known.
	ns, err := os.Open(call.NetNS)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	return inside(ns, func() error { return deleteVeth(call.IfName) })
}

// deleteAfter is the time that the kernel has to delete the pair with the pod's network
// namespace. The kernel deletes many pairs in one step, while each deletion of one
// interface waits for all CPUs several times.
const deleteAfter = 2 * time.Second

// unplugHost takes the host's end off the bridge and deletes it later, if it still exists:
// a process that has joined the network namespace, or a copy of the namespace's bind mount
// in another mount namespace, can keep the namespace and the pair for ever.
func unplugHost(ctx context.Context, host link) (off bool, err error) {
	if host.name == "" {
		return false, nil
	}
	conn, err := rtnl.Open()
	if err != nil {
		return false, err
	}
	l, err := conn.LinkByName(host.name)
	// Another pod's interface may have got the name since.
	if err == nil && (l.Kind != "veth" || l.MAC.String() != host.mac) {
		return false, conn.Close()
	}
	if err == nil {
		err = conn.Leave(l.Index)
	}
	if err != nil {
		err = errors.Join(err, conn.Close())
		if errors.Is(err, unix.ENODEV) {
			return false, nil
		}
		return false, err
	}
	// The connection stays in the network namespace in which it was opened.
	time.AfterFunc(deleteAfter, func() {
		defer conn.Close()
		// The kernel does not give the index to another interface.
		if err := conn.DeleteLink(l.Index); err != nil && !errors.Is(err, unix.ENODEV) {
			logrus.WithContext(ctx).WithError(err).WithField("interface", host.name).Warn("delete the interface of a detached pod")
		}
	})
	return true, nil
}

// deleteVeth deletes one end of a veth pair in the calling thread's network namespace,
// and so the other end. It leaves other kinds of interfaces alone.
func deleteVeth(name string) error {
	conn, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer conn.Close()
	l, err := conn.LinkByName(name)
	if err == nil && l.Kind == "veth" {
		err = conn.DeleteLink(l.Index)
	}
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// link is an interface as a result has it.
type link struct{ name, mac string }

// previous returns what the result of ADD says; known is false without one, as
// after an ADD that failed.
func previous(c *conf) (host link, ls []lease, known bool) {
	if len(c.PrevResult) == 0 {
		return link{}, nil, false
	}
	raw, err := create.CreateFromBytes(withVersion(c.PrevResult, c.CNIVersion))
	if err != nil {
		return link{}, nil, false
	}
	res, err := types100.NewResultFromResult(raw)
	if err != nil || len(res.IPs) == 0 {
		return link{}, nil, false
	}
	for _, ip := range res.IPs {
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			bits, _ := ip.Address.Mask.Size()
			ls = append(ls, lease{addr: netip.PrefixFrom(a.Unmap(), bits)})
		}
	}
	if len(res.Interfaces) > hostEnd && res.Interfaces[hostEnd].Sandbox == "" {
		host = link{res.Interfaces[hostEnd].Name, res.Interfaces[hostEnd].Mac}
	}
	return host, ls, true
}

// withVersion completes a result without version, which is the configuration's.
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

// collect frees the addresses of all pods that are not said to be there.
func (p *Plugin) collect(ctx context.Context, c *conf) error {
	valid := make(map[string]bool)
	for _, a := range append(c.ValidAttachments, c.Attachments...) {
		valid[owner(a.ContainerID, a.IfName)] = true
		valid[a.ContainerID] = true // as files of old versions have it
	}
	if err := p.freeOthers(ctx, leasesOf(c), func(o string) bool { return !valid[o] }); err != nil {
		return fmt.Errorf("collect addresses: %w", err)
	}
	return nil
}

func (p *Plugin) freeOthers(ctx context.Context, store *leases, goes func(owner string) bool) error {
	all, err := store.all()
	if err != nil {
		return err
	}
	found, err := store.find(all, goes)
	if err != nil || len(found) == 0 {
		return err
	}
	unlock, err := store.lock(ctx, &p.turns)
	if err != nil {
		return err
	}
	defer unlock()
	return store.drop(found, goes)
}

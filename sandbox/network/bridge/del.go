package bridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/criserver/criserver/internal/rtnl"
	"golang.org/x/sys/unix"
)

// del takes a pod off the bridge and frees its addresses. The pair itself goes
// with the pod's network namespace: the kernel takes many of those down in one
// step, while each removal of a link has it wait for all CPUs several times.
func del(c *conf, call Call) error {
	host, ls, known := previous(c)
	if host != "" {
		if err := leave(host); err != nil {
			return err
		}
	}
	store, err := openLeases(c)
	if err != nil {
		return fmt.Errorf("free addresses: %w", err)
	}
	defer store.free()
	own := owner(call.ContainerID, call.IfName)
	if known {
		err = store.release(ls, own)
	} else {
		err = store.releaseAll(func(o string) bool { return o == own || o == call.ContainerID })
	}
	if err != nil {
		return fmt.Errorf("free addresses: %w", err)
	}
	return nil
}

// leave takes the host's end off the bridge, so that the pod is heard no more.
func leave(host string) error {
	conn, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer conn.Close()
	l, err := conn.LinkByName(host)
	if err == nil {
		err = conn.Leave(l.Index)
	}
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// previous returns what the result of ADD says; known is false without one, as
// after an ADD that failed.
func previous(c *conf) (host string, ls []lease, known bool) {
	if len(c.PrevResult) == 0 {
		return "", nil, false
	}
	raw, err := create.CreateFromBytes(withVersion(c.PrevResult, c.CNIVersion))
	if err != nil {
		return "", nil, false
	}
	res, err := types100.NewResultFromResult(raw)
	if err != nil || len(res.IPs) == 0 {
		return "", nil, false
	}
	for _, ip := range res.IPs {
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			bits, _ := ip.Address.Mask.Size()
			ls = append(ls, lease{addr: netip.PrefixFrom(a.Unmap(), bits)})
		}
	}
	// An interface may have got the name of another pod's since; one that was
	// made for a pod begins with "veth" and is not inside it.
	if len(res.Interfaces) > hostEnd && res.Interfaces[hostEnd].Sandbox == "" && strings.HasPrefix(res.Interfaces[hostEnd].Name, "veth") {
		host = res.Interfaces[hostEnd].Name
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
func collect(c *conf) error {
	valid := make(map[string]bool)
	for _, a := range append(c.ValidAttachments, c.Attachments...) {
		valid[owner(a.ContainerID, a.IfName)] = true
		valid[a.ContainerID] = true // as files of old versions have it
	}
	store, err := openLeases(c)
	if err != nil {
		return fmt.Errorf("collect addresses: %w", err)
	}
	defer store.free()
	return store.releaseAll(func(o string) bool { return !valid[o] })
}

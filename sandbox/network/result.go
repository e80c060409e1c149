package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
)

// Result is the result of Attach.
type Result struct {
	// IPs are the addresses of the pod. The primary address is the first.
	IPs []netip.Addr
	// JSON is the CNI result of the last plugin.
	JSON json.RawMessage
}

// readResult reads the addresses of the pod from a result. The addresses of the named interface
// come before the addresses of other interfaces. Loopback addresses are ignored.
func readResult(res types.Result, ifName string) (*Result, error) {
	raw, err := json.Marshal(res)
	if err != nil {
		return nil, err
	}
	cur, err := types100.NewResultFromResult(res)
	if err != nil {
		return nil, fmt.Errorf("read the result: %w", err)
	}
	var first, rest []netip.Addr
	for _, ip := range cur.IPs {
		addr, ok := netip.AddrFromSlice(ip.Address.IP)
		if !ok {
			return nil, fmt.Errorf("invalid address %q in the result", ip.Address.IP)
		}
		addr = addr.Unmap()
		name, inside := interfaceOf(cur, ip)
		switch {
		case !inside || addr.IsLoopback() || slices.Contains(first, addr) || slices.Contains(rest, addr):
		case name == ifName || name == "":
			first = append(first, addr)
		default:
			rest = append(rest, addr)
		}
	}
	return &Result{IPs: append(first, rest...), JSON: raw}, nil
}

// interfaceOf returns the name of the interface of an address and reports whether the interface is in the pod. The
// addresses in results of old versions have no interface; they belong to the pod.
func interfaceOf(r *types100.Result, ip *types100.IPConfig) (name string, inside bool) {
	if ip.Interface == nil {
		return "", true
	}
	i := *ip.Interface
	if i < 0 || i >= len(r.Interfaces) {
		return "", false
	}
	return r.Interfaces[i].Name, r.Interfaces[i].Sandbox != ""
}

// podAddresses returns the first address of each family of eth0.
func podAddresses(result json.RawMessage) ([]netip.Prefix, error) {
	res, err := create.CreateFromBytes(result)
	if err != nil {
		return nil, err
	}
	cur, err := types100.NewResultFromResult(res)
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, ip := range cur.IPs {
		addr, ok := netip.AddrFromSlice(ip.Address.IP)
		addr = addr.Unmap()
		name, inside := interfaceOf(cur, ip)
		same := func(p netip.Prefix) bool { return p.Addr().Is4() == addr.Is4() }
		if !ok || !inside || name != IfName && name != "" || slices.ContainsFunc(out, same) {
			continue
		}
		bits, _ := ip.Address.Mask.Size()
		out = append(out, netip.PrefixFrom(addr, bits))
	}
	if len(out) == 0 {
		return nil, errors.New("the result has no address of the pod")
	}
	return out, nil
}

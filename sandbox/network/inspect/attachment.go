package inspect

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
)

// attachmentOf returns a recorded interface, and whether its files exist.
func attachmentOf(in AttachmentInput) Attachment {
	a := Attachment{Interface: in.Interface, Network: in.Network, Error: errorText(in.Error), ResultFile: in.ResultFile}
	if _, err := os.Stat(in.ResultFile); err == nil {
		a.HasResultFile = true
	}
	want, err := parseResult(in.Result, in.Interface)
	if err != nil && a.Error == "" {
		a.Error = "read the CNI result: " + err.Error()
	}
	a.Want = want
	return a
}

// missingLeases returns the addresses of the attachment that host-local has not leased to the pod.
func (a *Attachment) missingLeases(pod string) []netip.Addr {
	if a.Network.LeaseDir == "" {
		return nil
	}
	var out []netip.Addr
	for _, p := range a.Want.Addresses {
		b, err := os.ReadFile(filepath.Join(a.Network.LeaseDir, p.Addr().String()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue // unknown
		}
		// The first line is the id of the pod, the second line is the interface.
		if id, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n"); strings.TrimSpace(id) != pod {
			out = append(out, p.Addr())
		}
	}
	return out
}

// parseResult parses the part of a CNI result that describes an interface of a pod.
func parseResult(result []byte, name string) (Want, error) {
	var w Want
	if len(result) == 0 {
		return w, nil
	}
	res, err := create.CreateFromBytes(result)
	if err != nil {
		return w, err
	}
	cur, err := types100.NewResultFromResult(res)
	if err != nil {
		return w, err
	}
	for _, i := range cur.Interfaces {
		switch {
		case i.Sandbox != "" && i.Name == name:
			w.MAC = strings.ToLower(i.Mac)
		case i.Sandbox == "":
			w.HostInterface = i.Name // the bridge comes first, the veth interface comes after it
		}
	}
	if len(cur.Interfaces) < 2 {
		w.HostInterface = ""
	}
	for _, ip := range cur.IPs {
		if n := ip.Interface; n != nil && (*n < 0 || *n >= len(cur.Interfaces) || cur.Interfaces[*n].Name != name || cur.Interfaces[*n].Sandbox == "") {
			continue
		}
		p := prefixOf(&ip.Address)
		w.Addresses = append(w.Addresses, p)
		if gw := addrOf(ip.Gateway); gw.IsValid() {
			w.Gateways = append(w.Gateways, netip.PrefixFrom(gw, p.Bits()))
		}
	}
	for _, r := range cur.Routes {
		w.Routes = append(w.Routes, Route{Dst: prefixOf(&r.Dst), Gateway: addrOf(r.GW)})
	}
	return w, nil
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// wantGateways returns the gateways of the pods that are attached to a bridge which must have these addresses.
func wantGateways(r *Report, bridge string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range r.Pods {
		if p.NotReady != "" {
			continue
		}
		for _, a := range p.Attachments {
			if a.Network.Bridge != bridge || !a.Network.Gateway || a.Network.VLAN != 0 {
				continue
			}
			for _, g := range a.Want.Gateways {
				if !slices.Contains(out, g) {
					out = append(out, g)
				}
			}
		}
	}
	return out
}

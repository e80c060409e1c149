package bridge

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/allocator"
)

// conf is the configuration of both plugins with all options that this package handles.
type conf struct {
	CNIVersion       string          `json:"cniVersion"`
	Name             string          `json:"name"`
	Type             string          `json:"type"`
	Bridge           string          `json:"bridge"`
	IsGateway        bool            `json:"isGateway"`
	IsDefaultGateway bool            `json:"isDefaultGateway"`
	IPMasq           bool            `json:"ipMasq"`
	IPMasqBackend    string          `json:"ipMasqBackend"`
	HairpinMode      bool            `json:"hairpinMode"`
	MTU              int             `json:"mtu"`
	IPAM             ipamConf        `json:"ipam"`
	PrevResult       json.RawMessage `json:"prevResult"`

	ValidAttachments []types.GCAttachment `json:"cni.dev/valid-attachments"`
	Attachments      []types.GCAttachment `json:"cni.dev/attachments"` // the older name of the same list

	// ranges are the validated ranges, one address from each set for a pod. They are nil if host-local refuses the
	// ranges. Addresses that were leased nevertheless can still be freed.
	ranges []allocator.RangeSet
}

type ipamConf struct {
	Type    string               `json:"type"`
	DataDir string               `json:"dataDir"`
	Ranges  []allocator.RangeSet `json:"ranges"`
	Routes  []route              `json:"routes"`
	allocator.Range
}

type route struct {
	Dst netip.Prefix `json:"dst"`
	GW  netip.Addr   `json:"gw"`
}

const (
	defaultBridge  = "cni0"
	defaultDataDir = "/var/lib/cni/networks"
)

// parse returns the configuration, or nil if the configuration has an option that only the plugins handle.
func parse(stdin []byte) *conf {
	d := json.NewDecoder(bytes.NewReader(stdin))
	d.DisallowUnknownFields()
	c := &conf{}
	if d.Decode(c) != nil || c.Type != "bridge" || c.IPMasq || c.IPAM.Type != "host-local" || c.MTU < 0 {
		return nil
	}
	if strings.ContainsAny(c.Name, "/\x00") || c.Name == "" {
		return nil
	}
	if c.Bridge == "" {
		c.Bridge = defaultBridge
	}
	if c.IPAM.DataDir == "" {
		c.IPAM.DataDir = defaultDataDir
	}
	for _, r := range c.IPAM.Routes {
		if !r.Dst.IsValid() || !isPlain(r.Dst.Addr()) || !isPlain(r.GW) {
			return nil
		}
	}
	if ipam, _, err := allocator.LoadIPAMConfig(stdin, ""); err == nil {
		c.ranges = ipam.Ranges
	}
	return c
}

// isPlain reports whether an address is written in the form of its address family and without a zone. The plugins
// interpret other forms in another way.
func isPlain(a netip.Addr) bool { return !a.Is4In6() && a.Zone() == "" }

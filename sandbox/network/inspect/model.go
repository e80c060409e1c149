package inspect

import (
	"net/netip"
	"time"

	"github.com/criserver/criserver/sandbox/network"
)

// Report is the state of the network of a node at one moment.
type Report struct {
	Time     time.Time
	Host     Host
	Networks []Network
	Bridges  []Bridge
	Pods     []Pod
	Rules    Rules
	// NetworkError says why new pods cannot be attached, or is "".
	NetworkError string
	// Errors are the errors of reading the state of the node.
	Errors []string
	// Problems are the problems of the node. The problems of a pod are in the pod.
	Problems []Problem
}

func (r *Report) addError(what string, err error) {
	r.Errors = append(r.Errors, "read the "+what+": "+err.Error())
}

// Host has the settings and the interfaces of the host that the networks of the pods use.
type Host struct {
	// Uplinks are the interfaces of the host with a default route.
	Uplinks []Link
	// Forwarding4 and Forwarding6 are net.ipv4.ip_forward and net.ipv6.conf.all.forwarding, or "" without the family.
	Forwarding4, Forwarding6 string
	// BridgeNF4 and BridgeNF6 are net.bridge.bridge-nf-call-iptables and bridge-nf-call-ip6tables, or "" if the module
	// br_netfilter is not loaded.
	BridgeNF4, BridgeNF6 string
}

// Link is a network interface.
type Link struct {
	Name  string
	Index int
	Type  string // as ip -details shows it: veth, bridge, macvlan
	MAC   string
	MTU   int  // in bytes
	Up    bool // the administrative state
	// State is the operational state as ip shows it in lower case: up, down, lowerlayerdown, unknown.
	State     string
	Carrier   bool
	Addresses []netip.Prefix // in the order of the kernel
	Counters  Counters
}

// Counters count since the creation of the interface.
type Counters struct {
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// Network is a network that is configured or that pods are attached to.
type Network struct {
	network.Details

	Configured bool
	Pods       int // number of attached pods
}

// Bridge is a bridge of the host to which pods are attached.
type Bridge struct {
	Link

	Missing bool // the bridge does not exist; only the name is set
	STP     bool
	VLANs   bool // the bridge filters VLANs
	// RouteLocalnet is net.ipv4.conf.NAME.route_localnet: packets to 127.0.0.0/8 may arrive on the bridge.
	RouteLocalnet string
	Ports         []BridgePort
	// WantAddresses are the gateways of the attached pods that the bridge must have.
	WantAddresses []netip.Prefix
}

// BridgePort is a port of a bridge.
type BridgePort struct {
	Name string
	Type string
	Pod  string // the id of the pod, or ""
}

// Pod is the network of one pod.
type Pod struct {
	ID, Namespace, Name string
	NotReady            string // the reason why the pod is not ready, or ""
	HostNetwork, Guest  bool   // see PodInput
	NetNS               NetNS
	Attachments         []Attachment
	Interfaces          []Interface
	Routes              []Route
	Masquerade          []MasqueradeRule
	HostPorts           []HostPortRule
	DNS                 DNS
	Shaping             []Shaping

	WantHostPorts []network.PortMapping
	WantShaping   *network.Bandwidth // nil if the pod has no limits

	// Error says why the namespace could not be read, or is "".
	Error    string
	Problems []Problem
}

// NetNS is a network namespace.
type NetNS struct {
	Path  string
	Inode uint64 // 0 if the namespace does not exist
	// Name is the path where `ip netns` and agents find the namespace, or "". NameWrong says that the path does not
	// exist or refers to something else.
	Name      string
	NameWrong bool
}

// Interface is an interface in the namespace of a pod.
type Interface struct {
	Link

	// HasPeer says that the interface is one end of a veth pair, or has a parent interface as macvlan does.
	HasPeer bool
	// Peer is the other end of the veth pair or the parent interface; nil if it is not on the host.
	Peer *Link
	Port *Port // set if Peer is a port of a bridge
}

// Port says how an interface of the host is attached to a bridge.
type Port struct {
	Bridge   string
	State    string // disabled, listening, learning, forwarding, blocking
	Hairpin  bool
	Isolated bool
	VLANs    []VLAN // except the default VLAN of a bridge that does not filter VLANs
}

// VLAN is a VLAN of a bridge port.
type VLAN struct {
	ID             int
	PVID, Untagged bool
}

// Attachment is a recorded interface of a pod.
type Attachment struct {
	Interface string
	Network   network.Details
	// Error says why the record cannot be read, or is "".
	Error string
	// ResultFile is the file of the CNI library with the result of ADD, if HasResultFile.
	ResultFile    string
	HasResultFile bool
	Want          Want
	// MissingLeases are the addresses in Want whose lease of host-local is missing or belongs to another pod.
	MissingLeases []netip.Addr
}

// Want is the content of a CNI result: the interface, the addresses and the routes that the plugins have set up.
type Want struct {
	MAC       string
	Addresses []netip.Prefix
	// Gateways are the gateways of Addresses. Each has the prefix length of its address.
	Gateways []netip.Prefix
	Routes   []Route // without interface
	// HostInterface is the interface of the host that the plugin has created, or "".
	HostInterface string
}

// Route is a route in the main table of a namespace.
type Route struct {
	Dst       netip.Prefix // 0.0.0.0/0 or ::/0 is the default route
	Gateway   netip.Addr   // invalid for a destination on the link
	Interface string
	Source    netip.Addr // the preferred source address, or invalid
	Metric    int
}

// DNS is the resolv.conf of a pod.
type DNS struct {
	Path                       string
	Servers, Searches, Options []string
	FromHost                   bool
	Missing                    bool
	// Differs says that the daemon would write another content now.
	Differs bool
	Error   string // set if the file cannot be read
}

// Shaping is a limit of the rate of an interface.
type Shaping struct {
	Interface string // in the pod
	Device    string // the device of the host that limits the rate
	// Ingress says that the limit is for traffic to the pod; otherwise it is for traffic from the pod.
	Ingress bool
	Rate    uint64 // in bits per second
}

// Severity says how serious a problem is.
type Severity string

// Error is something that does not work. Warning is something that works but may surprise.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Problem is something that is not as it must be.
type Problem struct {
	Severity Severity
	Code     string // does not change between versions
	Subject  string // the interface, bridge, rule or file
	Message  string
	Remedy   string // one sentence
}

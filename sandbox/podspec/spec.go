// Package podspec parses RunPodSandbox requests. Parse checks every rule that a request can break and returns a typed
// [Spec]. The code that creates pod sandboxes uses the Spec and never parses the strings of the request again.
//
// The package owns all rules and error messages of the request, with one file per subject. It reads no state of the
// host: a [Node] says what the node allows.
package podspec

import (
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/criserver/criserver/sandbox/network"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxConfig bounds the size of a request, in bytes.
const maxConfig = 1 << 20

// Spec is a parsed request. It is immutable: neither the Spec nor the values that it points to may be modified.
type Spec struct {
	// Config is the request as the client sent it. Records store this message (docs/adr/0001).
	Config *cri.PodSandboxConfig
	// Handler is the runtime handler; "" is the default handler.
	Handler string
	Name    Name
	// Hostname is the requested host name, or "".
	Hostname string
	// LogDirectory is the absolute path of the directory of the container logs, or "".
	LogDirectory string
	// DNS is the resolver configuration. A pod with nil gets the configuration of the host.
	DNS        *types.DNS
	Namespaces Namespaces
	// SELinux has the SELinux options, or nil.
	SELinux *cri.SELinuxOption
	// CgroupParent is the requested cgroup parent, or "": an absolute path in the cgroup hierarchy for the cgroupfs
	// driver, the name of a slice for the systemd driver.
	CgroupParent string
	// Overhead and Resources are the resource limits of the pod as a whole, or nil.
	Overhead, Resources *cri.LinuxContainerResources
	// Sysctls are written when the namespaces of the pod are created. InterfaceSysctls are written when the pod is
	// attached to its networks, because they belong to its interfaces.
	Sysctls, InterfaceSysctls []namespace.Sysctl
	// PortMappings are the mappings with a host port, in the order in which rules for them must be created.
	PortMappings []network.PortMapping
	// DefaultNetwork is the requested network of eth0; "" for the default network of the node.
	DefaultNetwork string
	// Interfaces are the requested interfaces on additional networks. Their field Plan is not set.
	Interfaces []network.Interface
	// Bandwidth has the limits of the traffic on eth0, or nil.
	Bandwidth *network.Bandwidth
}

// Node has the rules of the node and of the configuration of the daemon.
type Node struct {
	// KnownHandler reports whether a runtime handler exists. HandlerNames lists the handlers for error messages.
	KnownHandler func(name string) bool
	HandlerNames func() []string
	// Pause is true if the daemon has a pause binary. A pod needs a pause for a shared PID namespace and for a user
	// namespace.
	Pause bool
	// UserNamespaces returns the reason why pods of a runtime handler cannot have a user namespace, or nil if they
	// can. If UserNamespaces is nil, no pod can have one.
	UserNamespaces func(handler string) error
	// HostNetworkUserNamespaces is like UserNamespaces, for pods with the network of the host.
	HostNetworkUserNamespaces func(handler string) error
	// CgroupDriver is the cgroup driver of the daemon.
	CgroupDriver CgroupDriver
	// CheckSecurity returns an error if the node cannot confine a pod as the security context requires. If
	// CheckSecurity is nil, the node can.
	CheckSecurity func(*cri.LinuxSandboxSecurityContext) error
	// CheckResources returns an error that names the field if its limits break a rule. If CheckResources is nil, all
	// limits are valid.
	CheckResources func(field string, r *cri.LinuxContainerResources) error
	// AllowedSysctls are names of sysctls, or prefixes that end in "*".
	AllowedSysctls []string
	// DefaultSysctls are the values of sysctls, by name, of pods that do not request another value.
	DefaultSysctls map[string]string
	// AdditionalNetworks are the CNI networks that pods may request with annotations.
	AdditionalNetworks []string
}

// Parse checks a request and parses it. Errors: ErrInvalidArgument, and ErrFailedPrecondition if the node or the
// runtime handler supports no user namespaces.
func Parse(config *cri.PodSandboxConfig, handler string, node Node) (*Spec, error) {
	if config == nil {
		return nil, invalid("config", "must be set")
	}
	if n := proto.Size(config); n > maxConfig {
		return nil, invalid("config", "has %d bytes, more than %d", n, maxConfig)
	}
	if !node.KnownHandler(handler) {
		return nil, invalid("runtime_handler", "%q is unknown; there are %q", handler, node.HandlerNames())
	}
	p := newParser(config, handler)
	p.node = &node
	for _, parse := range subjects {
		if err := parse(p); err != nil {
			return nil, err
		}
	}
	return p.spec, nil
}

// ParseStored parses a request that a daemon accepted earlier. The daemon may have had another version or another
// configuration. ParseStored therefore does not check what the node allows, and always returns a Spec: a value that
// breaks a rule is parsed as far as possible. The error lists the broken rules. config must not be nil.
func ParseStored(config *cri.PodSandboxConfig, handler string) (*Spec, error) {
	p := newParser(config, handler)
	var errs []error
	for _, parse := range subjects {
		errs = append(errs, parse(p))
	}
	return p.spec, errors.Join(errs...)
}

// parser parses one request. Each subject reads config, checks its rules and sets its fields of spec. A subject that
// returns an error has set its fields as far as possible.
type parser struct {
	config *cri.PodSandboxConfig
	spec   *Spec
	node   *Node // nil for a stored request: skip the checks of what the node allows
}

func newParser(config *cri.PodSandboxConfig, handler string) *parser {
	return &parser{config: config, spec: &Spec{Config: config, Handler: handler}}
}

// subjects parse a request. A subject may use the fields of spec that the subjects before it have set.
var subjects = []func(*parser) error{
	(*parser).platform,
	(*parser).metadata,
	(*parser).hostname,
	(*parser).logDirectory,
	(*parser).dns,
	(*parser).namespaces,
	(*parser).userNamespace,
	(*parser).security,
	(*parser).cgroupParent,
	(*parser).resources,
	(*parser).sysctls,
	(*parser).ports,
	(*parser).networks,
	(*parser).bandwidth,
}

func (p *parser) platform() error {
	if p.config.Windows != nil {
		return invalid("windows", "must not be set on Linux")
	}
	return nil
}

// invalid returns an error that names a field of the request and the rule that the field breaks.
func invalid(field, rule string, args ...any) error {
	return fmt.Errorf("%s %s: %w", field, fmt.Sprintf(rule, args...), errdefs.ErrInvalidArgument)
}

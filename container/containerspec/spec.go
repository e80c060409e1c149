// Package containerspec parses the request of CreateContainer. Parse turns the CRI
// messages into a Spec, which is typed and immutable, and checks every rule of a
// request; each error names the field that breaks a rule. Code that has a Spec does
// not look at the request again.
//
// Two things are known only later. Spec.Process joins a Spec with the config of the
// image, and Accounts.Identify finds the user in the account files of the mounted root
// file system. Both take typed values.
//
// The package asks the host only through a Node, and changes nothing.
package containerspec

import (
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/oci/qos"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Spec is the parsed request for a container. Nothing writes to a Spec or to what its
// fields refer to.
type Spec struct {
	Name    string
	Attempt uint32
	Image   Image
	Labels  map[string]string
	// Annotations are the annotations of the container.
	Annotations map[string]string
	// LogPath is the absolute path of the log, or "" for no log.
	LogPath string

	Command Command
	Stdio   Stdio
	User    User
	// StopSignal is the requested stop signal, or 0 for the stop signal of the image.
	StopSignal unix.Signal
	// GracePeriod is how long systemd waits between the stop signal and SIGKILL when
	// the machine shuts down.
	GracePeriod time.Duration

	Mounts  []Mount
	Devices []Device
	// CDIDevices are the qualified names of the requested CDI devices, each once.
	CDIDevices []string
	PID        PIDNamespace

	Security Security
	// Resources are the requested limits, or nil for no limits.
	Resources *cri.LinuxContainerResources
	// BlockIO and RDT are the contents of the classes that annotations name, or nil.
	BlockIO *specs.LinuxBlockIO
	RDT     *specs.LinuxIntelRdt
}

// Request is the input of Parse.
type Request struct {
	Config *cri.ContainerConfig
	// Pod is the config from which the pod sandbox of the container was made.
	Pod *cri.PodSandboxConfig
	// Node has the rules of the node. If Node is nil, Parse does not check the rules of the
	// node, and leaves the fields empty that depend on the node: the AppArmor and
	// seccomp profiles and the classes of block I/O and RDT.
	Node *Node
}

// Node has the rules of the node and of the runtime handler of the pod.
type Node struct {
	// Handler is the name of the runtime handler, for error messages.
	Handler string
	// Guest is true if the runtime runs the containers of a pod in a guest kernel.
	Guest bool
	// SELinux is true if the host has SELinux. Kubernetes has SELinux options ignored
	// on other hosts.
	SELinux bool
	Rules   Rules
	// MountOptions returns the mount options that the runtime supports, or nil if the
	// runtime does not report them. It can wait for the runtime, so Parse calls it only
	// for requests that have mount options. The function can be nil.
	MountOptions func() []string
	// IDMappedMounts returns an error if the handler does not support mounts with mapped
	// ids. The function can be nil.
	IDMappedMounts func() error
	BlockIO        qos.BlockIO
	RDT            qos.RDT
}

// Rules are the rules of the OCI config builder. *oci.Builder implements Rules.
type Rules interface {
	// CheckNewResources returns an error if the limits of a new container break a rule.
	CheckNewResources(r *cri.LinuxContainerResources) error
	// AppArmorProfile returns the name of the AppArmor profile, or "" for none.
	AppArmorProfile(sc *cri.LinuxContainerSecurityContext) (string, error)
	// SeccompProfile returns the kind of the seccomp profile, and the file of a Localhost
	// profile.
	SeccompProfile(sc *cri.LinuxContainerSecurityContext) (kind cri.SecurityProfile_ProfileType, path string, err error)
}

// Parse parses and checks a request. Errors are ErrInvalidArgument if the request
// breaks a rule, and ErrFailedPrecondition if the node lacks what the request needs.
func Parse(r Request) (*Spec, error) {
	p := parser{Request: r, spec: &Spec{}}
	for _, parse := range []func() error{
		p.metadata, p.command, p.mounts, p.devices, p.user, p.logPath, p.stop, p.resources,
		p.namespaces, p.security, p.classes,
	} {
		if err := parse(); err != nil {
			return nil, err
		}
	}
	return p.spec, nil
}

// parser holds the Spec that Parse fills.
type parser struct {
	Request
	spec *Spec
}

func (p *parser) securityContext() *cri.LinuxContainerSecurityContext {
	return p.Config.GetLinux().GetSecurityContext()
}

// invalid returns an ErrInvalidArgument. The message names the field and the rule that
// the field breaks.
func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

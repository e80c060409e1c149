package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Ways in which packets get from a node to the pods of another node.
const (
	Routes = "routes" // a route on each node to the pods of each other node
	VXLAN  = "vxlan"  // the same routes, through a VXLAN device
)

// The addresses of a cluster. All of them are in the network namespaces of its machines.
const (
	lanPrefix4, lanPrefix6 = "10.243.0.", "fd00:10:243::"
	lanBits4, lanBits6     = "/24", "/64"
	podCIDR                = "10.244.0.0/16,fd00:10:244::/56"
	serviceCIDR            = "10.245.0.0/16,fd00:10:245::/112"
	dnsAddress4            = "10.245.0.10"
	dnsAddress6            = "fd00:10:245::a"
	firstService           = "10.245.0.1"
	apiPort                = 6443
	registryPort           = 5000
	dnsDomain              = "cluster.local"
)

// Config is the configuration of a cluster.
type Config struct {
	Name  string // letters, digits and dashes
	Dir   string // directory of all files of the cluster
	Top   string // top directory of the project, with bin/ and .cache/images
	Nodes int    // at least 1

	Network string // Routes or VXLAN; empty for Routes

	// Handler is the OCI runtime of pods without a RuntimeClass, runc or crun. If Handler is empty, criserver selects
	// one.
	Handler string

	// RuntimeCommand is a shell command that starts another CRI runtime in place of criserver. Its environment has the
	// path of the socket in CLUSTER_SOCKET, an empty directory in CLUSTER_DIR, host and port of the registry in
	// CLUSTER_REGISTRY, and Handler in CLUSTER_HANDLER. It must have the CNI configuration directory /etc/cni/net.d.
	RuntimeCommand string

	Output func(format string, args ...any) // reports progress; may be nil
}

var validName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$`)

// check returns an error that names the first invalid field, and sets defaults.
func (c *Config) check() error {
	if os.Getuid() != 0 {
		return errors.New("start cluster: root is required")
	}
	if !validName.MatchString(c.Name) {
		return fmt.Errorf("start cluster: name %q must have 1 to 32 lower case letters, digits and dashes", c.Name)
	}
	// Each machine mounts its own directories over these.
	for _, hidden := range []string{"/etc", "/proc", "/run", "/var"} {
		if c.Dir == hidden || strings.HasPrefix(c.Dir, hidden+"/") {
			return fmt.Errorf("start cluster: directory %s must not be below %s; set TMPDIR", c.Dir, hidden)
		}
	}
	if c.Nodes < 1 || c.Nodes > 50 {
		return fmt.Errorf("start cluster: nodes %d must be from 1 to 50", c.Nodes)
	}
	if c.Network == "" {
		c.Network = Routes
	}
	if c.Network != Routes && c.Network != VXLAN {
		return fmt.Errorf("start cluster: network %q must be %s or %s", c.Network, Routes, VXLAN)
	}
	if c.Handler != "" && c.Handler != "runc" && c.Handler != "crun" {
		return fmt.Errorf("start cluster: handler %q must be runc or crun", c.Handler)
	}
	if c.Output == nil {
		c.Output = func(string, ...any) {}
	}
	for _, name := range append([]string{"criserver", "conmon", "runc", "kubelet"}, kubernetesPrograms...) {
		if _, err := os.Stat(c.program(name)); err != nil {
			return fmt.Errorf("start cluster: %w; build the programs with make cluster-tools", err)
		}
	}
	return nil
}

// kubernetesPrograms are the programs in the directory bin/kubernetes.
var kubernetesPrograms = []string{
	"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubectl", "coredns",
}

// program returns the path of a program below bin/.
func (c *Config) program(name string) string {
	for _, k := range kubernetesPrograms {
		if name == k {
			return filepath.Join(c.Top, "bin", "kubernetes", name)
		}
	}
	return filepath.Join(c.Top, "bin", name)
}

// DefaultDir returns the directory of a cluster that has a name.
func DefaultDir(name string) string { return filepath.Join(os.TempDir(), "criserver-cluster-"+name) }

// cgroupOf returns the path of the cgroup of a cluster.
func cgroupOf(name string) string {
	if managedBySystemd() {
		return "/" + systemdSlice + "/" + scopeName(name)
	}
	return "/" + cgroupTop + "/" + name
}

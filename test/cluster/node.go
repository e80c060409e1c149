package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/criserver/criserver/test/cluster/machine"
	"github.com/criserver/criserver/test/harness"
)

// The services of a node.
const (
	Runtime = "criserver" // or the program of Config.RuntimeCommand
	Kubelet = "kubelet"
	Proxy   = "kube-proxy"
)

const socket = "/run/criserver/criserver.sock"

// Node is a node of the cluster.
type Node struct {
	Name     string
	PodCIDRs []netip.Prefix
	Machine  *machine.Machine

	cluster *Cluster
	number  int         // from 1
	extra   bool        // whether AddNode has added the node
	options NodeOptions // of AddNode
}

// dir returns the path of a file of the node on the host.
func (n *Node) dir(parts ...string) string {
	return n.cluster.path(append([]string{"nodes", n.Name}, parts...)...)
}

// systemd reports whether systemd is the init process of the node. Other runtimes than criserver are configured for
// cgroupfs.
func (n *Node) systemd() bool { return managedBySystemd() && n.cluster.RuntimeCommand == "" }

// cgroup returns the path of the cgroup of the node on the host.
func (n *Node) cgroup() string { return cgroupOf(n.cluster.Name) + "/" + n.Name }

// boot starts the machine of the node and connects it to the LAN. The cgroups of an earlier boot are removed, as a
// reboot does.
func (n *Node) boot(ctx context.Context) error {
	if err := removeCgroups(n.cgroup()); err != nil {
		return err
	}
	if err := n.writeFiles(); err != nil {
		return err
	}
	// The kubelet requires that its root has every controller, and processes are only in leaves of cgroup v2. systemd
	// creates the leaves itself.
	path := n.cgroup()
	if !n.systemd() {
		path += "/system"
	}
	dirs, err := makeCgroup(path)
	if err != nil {
		return err
	}
	n.Machine, err = machine.Start(machine.Config{
		Name: n.Name, Dir: n.dir(), Cgroups: dirs, Path: n.cluster.searchPath(), Disk: n.options.Disk, Systemd: n.systemd(),
	})
	if err != nil {
		return err
	}
	return errors.Join(writeProcess(n.dir(processFile), n.Machine.Pid()), n.connect(ctx))
}

// StartRuntime starts the runtime and waits until it serves.
func (n *Node) StartRuntime(ctx context.Context) error {
	return n.startRuntime(ctx, n.cluster.program("criserver"))
}

// StartOtherRuntime starts another build of criserver.
func (n *Node) StartOtherRuntime(ctx context.Context, program string) error {
	return n.startRuntime(ctx, program)
}

func (n *Node) startRuntime(ctx context.Context, program string) error {
	var err error
	if command := n.cluster.RuntimeCommand; command != "" {
		env := []string{
			"CLUSTER_SOCKET=" + socket, "CLUSTER_DIR=/var/lib/runtime",
			"CLUSTER_REGISTRY=" + registryAddress, "CLUSTER_HANDLER=" + n.cluster.Handler,
		}
		err = n.Machine.StartService(Runtime, env, "/bin/sh", "-c", "mkdir -p /run/criserver /var/lib/runtime && exec "+command)
	} else {
		err = n.Machine.StartService(Runtime, nil, program, "--config", "/etc/criserver/criserver.toml")
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, harness.Patience(60*time.Second))
	defer cancel()
	for {
		// The socket is in the mount namespace of the node.
		conn, err := net.Dial("unix", fmt.Sprintf("/proc/%d/root%s", n.Machine.Pid(), socket))
		if err == nil {
			return conn.Close()
		}
		if s, stateErr := n.Machine.State(Runtime); stateErr != nil || !s.Running {
			return fmt.Errorf("start runtime of %s: the process exited with wait status %#x; its log is %s", n.Name, s.Status, n.Machine.LogPath(Runtime))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("start runtime of %s: %w: %w", n.Name, ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// StartKubelet starts the kubelet. Copies are mounted over the sysctls of the whole host that a kubelet sets, in a
// mount namespace of the kubelet.
func (n *Node) StartKubelet() error {
	script := "mount --make-rprivate /proc\n"
	for _, name := range hostSysctls {
		script += fmt.Sprintf("cat /proc/sys/%[1]s >/run/sysctl-copy-%[2]s\nmount --bind /run/sysctl-copy-%[2]s /proc/sys/%[1]s\n", name, filepath.Base(name))
	}
	script += `exec "$@"`
	return n.Machine.StartService(Kubelet, nil, "unshare", "--mount", "--propagation", "unchanged", "/bin/sh", "-ec", script, "sh",
		n.cluster.program("kubelet"), "--config", "/etc/kubernetes/kubelet.json", "--kubeconfig", "/etc/kubernetes/kubelet.conf",
		"--hostname-override", n.Name, "--node-ip", n.Address4()+","+n.Address6(), "--v", "2")
}

// hostSysctls are the sysctls of the whole host that a kubelet sets when it starts.
var hostSysctls = []string{
	"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
	"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
}

// startProxy starts kube-proxy.
func (n *Node) startProxy() error {
	return n.Machine.StartService(Proxy, nil, n.cluster.program("kube-proxy"), "--config", "/etc/kubernetes/kube-proxy.json", "--v", "1")
}

// StopService stops a service of the node with a signal, and waits for its exit.
func (n *Node) StopService(ctx context.Context, name string, signal syscall.Signal) error {
	return n.Machine.Stop(ctx, name, signal)
}

// PowerCut kills all processes of the node at once, and loses /run. Boot starts the node again.
func (n *Node) PowerCut(ctx context.Context) error {
	n.Machine.Kill()
	// The kernel deletes the veth pair with the namespace, some time later: before ip looks for the device, or after that.
	err := n.cluster.Control.RunInNetwork(ctx, "ip", "link", "delete", n.port())
	if err != nil && (strings.Contains(err.Error(), "Cannot find device") || strings.Contains(err.Error(), "No such device")) {
		err = nil
	}
	return err
}

// Boot boots a node after PowerCut.
func (n *Node) Boot(ctx context.Context) error {
	if err := n.boot(ctx); err != nil {
		return err
	}
	if n.options.Prepare != nil {
		if err := n.options.Prepare(ctx, n); err != nil {
			return err
		}
	}
	if !n.extra {
		if err := n.connectOthers(ctx); err != nil {
			return err
		}
	}
	return n.startServices(ctx)
}

func (n *Node) startServices(ctx context.Context) error {
	if err := n.StartRuntime(ctx); err != nil {
		return err
	}
	return errors.Join(n.StartKubelet(), n.startProxy())
}

// writeFiles writes the files of the node's /etc.
func (n *Node) writeFiles() error {
	c := n.cluster
	hosts := "127.0.0.1 localhost\n::1 localhost\n" + LANAddress4 + " control\n"
	for _, other := range c.Nodes {
		hosts += other.Address4() + " " + other.Name + "\n" + other.Address6() + " " + other.Name + "\n"
	}
	kubelet, err := json.MarshalIndent(n.kubeletConfig(), "", "  ")
	if err != nil {
		return err
	}
	proxy, err := json.MarshalIndent(n.proxyConfig(), "", "  ")
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		"hosts":                              hosts,
		"hostname":                           n.Name + "\n",
		"resolv.conf":                        "# The LAN has no DNS server.\n",
		"criserver/criserver.toml":           n.runtimeConfig(),
		"criserver/cni.template":             c.cniTemplate(),
		"containers/registries.conf":         c.registriesConf,
		"containers/policy.json":             `{"default": [{"type": "insecureAcceptAnything"}]}` + "\n",
		"kubernetes/kubelet.json":            string(kubelet),
		"kubernetes/kube-proxy.json":         string(proxy),
		"crictl.yaml":                        "runtime-endpoint: unix://" + socket + "\nimage-endpoint: unix://" + socket + "\n",
		"cni/net.d/.keep":                    "",
		"containers/registries.conf.d/.keep": "",
		"criserver/criserver.toml.d/.keep":   "",
		"kubernetes/manifests/.keep":         "",
		"containers/registries.d/.keep":      "",
	} {
		path := n.dir("etc", "upper", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return errors.Join(
		c.writeKubeconfig(n.dir("etc", "upper", "kubernetes", "kubelet.conf"), c.apiURL(), userNode+n.Name),
		c.writeKubeconfig(n.dir("etc", "upper", "kubernetes", "kube-proxy.conf"), c.apiURL(), userProxy),
	)
}

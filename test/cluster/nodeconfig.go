package cluster

import (
	"fmt"
	"maps"
	"path/filepath"
)

// runtimeConfig returns the configuration of criserver on the node.
func (n *Node) runtimeConfig() string {
	bin := func(parts ...string) string {
		return filepath.Join(append([]string{n.cluster.Top, "bin"}, parts...)...)
	}
	handler := ""
	if n.cluster.Handler != "" {
		handler = fmt.Sprintf("default_runtime = %q\n", n.cluster.Handler)
	}
	return fmt.Sprintf(`# criserver on node %[1]s of a test cluster.
%[6]slog_level = "debug"
%[2]s
[cni]
conf_template = "/etc/criserver/cni.template"
default_bridge = false
bin_dirs = [%[3]q]

[monitor]
path = %[4]q

[runtimes.runc]
path = %[5]q

[runtimes.runsc]
options = ["--network=host"]
`, n.Name, n.cgroupConfig(), bin("cni"), bin("conmon"), bin("runc"), handler)
}

// cgroupConfig returns the configuration of the cgroups of criserver. A node with systemd has the defaults of criserver
// and of the kubelet.
func (n *Node) cgroupConfig() string {
	if n.systemd() {
		return ""
	}
	return fmt.Sprintf("cgroup_driver = \"cgroupfs\"\ncgroup_parent = %q\n", n.cgroup()+"/pods")
}

// cniTemplate returns the template of the network of a node. The pods of the cluster are routed and not masqueraded.
func (c *Cluster) cniTemplate() string {
	return fmt.Sprintf(`{
  "cniVersion": "1.1.0", "name": "pods",
  "plugins": [
    {
      "type": "bridge", "bridge": "cri0", "isGateway": true, "ipMasq": false, "hairpinMode": true, "mtu": %d,
      "ipam": {
        "type": "host-local", "dataDir": "/run/criserver/ipam",
        "ranges": [{{range $i, $cidr := .PodCIDRRanges}}{{if $i}}, {{end}}[{ "subnet": "{{$cidr}}" }]{{end}}],
        "routes": [{{range $i, $route := .Routes}}{{if $i}}, {{end}}{ "dst": "{{$route}}" }{{end}}]
      }
    },
    { "type": "portmap", "backend": "nftables", "snat": true, "capabilities": { "portMappings": true } }
  ]
}
`, c.podMTU())
}

// kubeletConfig returns the configuration of the kubelet. It is what kubeadm writes, with shorter intervals, the cgroup
// of the node as the root of pods, and the options of the node.
func (n *Node) kubeletConfig() map[string]any {
	config := map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1",
		"kind":       "KubeletConfiguration",

		"containerRuntimeEndpoint": "unix://" + socket,
		"runtimeRequestTimeout":    "2m",
		"staticPodPath":            "/etc/kubernetes/manifests",
		"resolvConf":               "/etc/resolv.conf",
		"clusterDNS":               []string{dnsAddress4},
		"clusterDomain":            dnsDomain,
		"address":                  "0.0.0.0",
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false},
			"webhook":   map[string]any{"enabled": true},
			"x509":      map[string]any{"clientCAFile": n.cluster.path("pki", "ca.crt")},
		},
		"authorization":       map[string]any{"mode": "Webhook"},
		"rotateCertificates":  false,
		"serializeImagePulls": false,
		// The disk of a machine with tests may be nearly full.
		"imageGCHighThresholdPercent": 99,
		"imageGCLowThresholdPercent":  98,
		"maxParallelImagePulls":       5,
		"seccompDefault":              true,
		"failSwapOn":                  false,
		"failCgroupV1":                false,
		"makeIPTablesUtilChains":      false,
		"oomScoreAdj":                 0, // lower values need a capability that the kubelet does not have in a container
		"maxPods":                     150,
		"podPidsLimit":                4096,
		"evictionHard":                map[string]string{"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
		"syncFrequency":               "10s",
		"nodeStatusUpdateFrequency":   "4s",
		"nodeLeaseDurationSeconds":    10,
		"crashLoopBackOff":            map[string]string{"maxContainerRestartPeriod": "10s"},
		"containerLogMaxSize":         "10Mi",
	}
	if !n.systemd() {
		config["cgroupRoot"] = n.cgroup()
	}
	if n.extra {
		config["registerWithTaints"] = []map[string]string{extraTaint}
	}
	maps.Copy(config, n.options.Kubelet)
	return config
}

// proxyConfig returns the configuration of kube-proxy. It must not set the limits of connection tracking,
// which belong to the host.
func (n *Node) proxyConfig() map[string]any {
	return map[string]any{
		"apiVersion":         "kubeproxy.config.k8s.io/v1alpha1",
		"kind":               "KubeProxyConfiguration",
		"mode":               "nftables",
		"hostnameOverride":   n.Name,
		"clusterCIDR":        podCIDR,
		"bindAddress":        n.Address4(),
		"healthzBindAddress": "0.0.0.0:10256",
		"metricsBindAddress": "127.0.0.1:10249",
		"clientConnection":   map[string]any{"kubeconfig": "/etc/kubernetes/kube-proxy.conf"},
		"conntrack": map[string]any{
			"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
		},
		"nftables": map[string]any{"minSyncPeriod": "100ms", "syncPeriod": "30s"},
	}
}

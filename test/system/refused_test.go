package system

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestContainerRequestsThatAreRefused(t *testing.T) {
	n := newNode(t, "refused", 103)
	p := n.RunPod(t, podConfig("refused"))
	for name, tc := range map[string]struct {
		change func(*cri.ContainerConfig)
		says   string
	}{
		"no metadata":         {func(c *cri.ContainerConfig) { c.Metadata = nil }, "metadata"},
		"no name":             {func(c *cri.ContainerConfig) { c.Metadata.Name = "" }, "metadata.name"},
		"line in a name":      {func(c *cri.ContainerConfig) { c.Metadata.Name = "a\nb" }, "metadata.name"},
		"no image":            {func(c *cri.ContainerConfig) { c.Image = nil }, "image"},
		"empty image":         {func(c *cri.ContainerConfig) { c.Image.Image = "" }, "image"},
		"log above directory": {func(c *cri.ContainerConfig) { c.LogPath = "../other/0.log" }, "log_path"},
		"absolute log path":   {func(c *cri.ContainerConfig) { c.LogPath = "/etc/passwd" }, "log_path"},
		"log too long":        {func(c *cri.ContainerConfig) { c.LogPath = strings.Repeat("a", 256) }, "log_path"},
		"log too deep": {func(c *cri.ContainerConfig) {
			c.LogPath = strings.TrimSuffix(strings.Repeat("a/", (4100-len(p.Config.GetLogDirectory()))/2), "/") + "/0.log"
		}, "log_path"},
		"directory too long": {func(c *cri.ContainerConfig) { c.WorkingDir = "/" + strings.Repeat("a", 256) }, "working directory"},
		"relative directory": {func(c *cri.ContainerConfig) { c.WorkingDir = "tmp" }, "working_dir"},
		"env without a key":  {func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{{Value: []byte("x")}} }, "env"},
		"env key with =":     {func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{{Key: "A=B"}} }, "env"},
		"env value with NUL": {func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{{Key: "A", Value: []byte("x\x00y")}} }, "env"},
		// An OCI config is JSON, which must be UTF-8.
		"env value not UTF-8": {func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{{Key: "A", Value: []byte{0xff}}} }, `env "A"`},
		"argument with NUL":   {func(c *cri.ContainerConfig) { c.Args = []string{"x\x00y"} }, "args"},
		"stop signal unknown": {func(c *cri.ContainerConfig) { c.StopSignal = 999 }, "stop_signal"},
	} {
		t.Run(name, func(t *testing.T) {
			config := containerConfig(p, "c", busybox, "true")
			tc.change(config)
			_, err := n.RuntimeService.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.ID, Config: config, SandboxConfig: p.Config})
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("create the container: got error %v, want InvalidArgument with %s", err, tc.says)
			}
		})
	}
	config := containerConfig(p, "c", busybox, "true")
	config.Image.Image = "registry.k8s.io/never/pulled:1"
	_, err := n.RuntimeService.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.ID, Config: config, SandboxConfig: p.Config})
	if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "never/pulled") {
		t.Errorf("create with a missing image: got error %v, want NotFound with the image", err)
	}
	if _, containers := n.running(t); containers != 0 {
		t.Errorf("containers: got %d, want none", containers)
	}
}

func TestPodRequestsThatAreRefused(t *testing.T) {
	n := newNode(t, "podrefused", 104)
	for name, tc := range map[string]struct {
		change func(*cri.PodSandboxConfig)
		says   string
	}{
		"no metadata":          {func(c *cri.PodSandboxConfig) { c.Metadata = nil }, "metadata"},
		"no name":              {func(c *cri.PodSandboxConfig) { c.Metadata.Name = "" }, "metadata.name"},
		"no namespace":         {func(c *cri.PodSandboxConfig) { c.Metadata.Namespace = "" }, "metadata.namespace"},
		"line in a name":       {func(c *cri.PodSandboxConfig) { c.Metadata.Name = "a\nb" }, "metadata.name"},
		"tab in a uid":         {func(c *cri.PodSandboxConfig) { c.Metadata.Uid = "a\tb" }, "metadata.uid"},
		"relative log path":    {func(c *cri.PodSandboxConfig) { c.LogDirectory = "var/log" }, "log_directory"},
		"host name with space": {func(c *cri.PodSandboxConfig) { c.Hostname = "a b" }, "hostname"},
		"host name too long":   {func(c *cri.PodSandboxConfig) { c.Hostname = strings.Repeat("a", 65) }, "hostname"},
		"DNS server newline":   {func(c *cri.PodSandboxConfig) { c.DnsConfig.Servers = []string{"1.1.1.1\noptions x"} }, "dns_config.servers"},
		"DNS search newline":   {func(c *cri.PodSandboxConfig) { c.DnsConfig.Searches = []string{"a\nnameserver 1.2.3.4"} }, "dns_config.searches"},
		"DNS option newline":   {func(c *cri.PodSandboxConfig) { c.DnsConfig.Options = []string{"a\nb"} }, "dns_config.options"},
		"sysctl of the host":   {func(c *cri.PodSandboxConfig) { c.Linux.Sysctls = map[string]string{"kernel.core_pattern": "|/x"} }, "sysctls"},
		"sysctl path": {func(c *cri.PodSandboxConfig) {
			c.Linux.Sysctls = map[string]string{"net.ipv4/../../kernel.pid_max": "1"}
		}, "sysctls"},
		"sysctl two values": {func(c *cri.PodSandboxConfig) {
			c.Linux.Sysctls = map[string]string{"net.ipv4.ip_forward": "1\nkernel.x=1"}
		}, "sysctls"},
		"sysctl unknown": {func(c *cri.PodSandboxConfig) {
			c.Linux.Sysctls = map[string]string{"net.ipv4.ip_forwards": "1"}
		}, "sysctl"},
		"sysctl value": {func(c *cri.PodSandboxConfig) {
			c.Linux.Sysctls = map[string]string{"net.ipv4.ip_forward": "yes"}
		}, "sysctl"},
		"log directory too long": {func(c *cri.PodSandboxConfig) { c.LogDirectory = "/tmp/" + strings.Repeat("a", 256) }, "log_directory"},
		"cgroup above":           {func(c *cri.PodSandboxConfig) { c.Linux.CgroupParent = "/../../x" }, "cgroup_parent"},
		"PID mode TARGET": {func(c *cri.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_TARGET
		}, "pid"},
		"network mode CONTAINER": {func(c *cri.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Network = cri.NamespaceMode_CONTAINER
		}, "network"},
		"IPC mode 17": {func(c *cri.PodSandboxConfig) { c.Linux.SecurityContext.NamespaceOptions.Ipc = 17 }, "ipc"},
	} {
		t.Run(name, func(t *testing.T) {
			config := podConfig("refused")
			tc.change(config)
			_, err := n.RuntimeService.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config})
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("run the pod: got error %v, want InvalidArgument with %s", err, tc.says)
			}
		})
	}
	if pods, _ := n.running(t); pods != 0 {
		t.Errorf("pods: got %d, want none", pods)
	}
}

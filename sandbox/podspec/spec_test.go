package podspec

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// testNode allows everything that a node can allow.
func testNode() Node {
	return Node{
		KnownHandler:   func(name string) bool { return name == "" || name == "runc" },
		HandlerNames:   func() []string { return []string{"runc"} },
		Pause:          true,
		UserNamespaces: func(string) error { return nil },

		HostNetworkUserNamespaces: func(string) error { return nil },

		CgroupDriver:   Cgroupfs,
		AllowedSysctls: []string{"kernel.shm*", "kernel.msg*", "kernel.sem", "fs.mqueue.*", "net.*"},
	}
}

// podConfig returns a request that Parse accepts.
func podConfig() *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: "a", Namespace: "default", Uid: "uid-a"},
		Hostname: "a",
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent: "/test",
			SecurityContext: &cri.LinuxSandboxSecurityContext{
				NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER},
			},
		},
	}
}

func namespaceOptions(c *cri.PodSandboxConfig) *cri.NamespaceOption {
	return c.Linux.SecurityContext.NamespaceOptions
}

func mustParse(t *testing.T, c *cri.PodSandboxConfig) *Spec {
	t.Helper()
	spec, err := Parse(c, "runc", testNode())
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// rules maps the name of a case to a change of podConfig and to a part of the error that Parse returns for the changed
// request; "" for no error.
type rules map[string]struct {
	change func(*cri.PodSandboxConfig)
	want   string
}

// check also parses each request as a stored one, which must always return a Spec.
func (r rules) check(t *testing.T, node Node) {
	t.Helper()
	for name, tt := range r {
		t.Run(name, func(t *testing.T) {
			c := podConfig()
			tt.change(c)
			if spec, _ := ParseStored(c, "runc"); spec == nil || spec.Config != c {
				t.Errorf("ParseStored returned %+v", spec)
			}
			_, err := Parse(c, "runc", node)
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want an invalid argument with %q", err, tt.want)
			}
		})
	}
}

func TestRequest(t *testing.T) {
	rules{
		"plain":         {func(*cri.PodSandboxConfig) {}, ""},
		"no linux part": {func(c *cri.PodSandboxConfig) { c.Linux = nil }, ""},
		"windows":       {func(c *cri.PodSandboxConfig) { c.Windows = &cri.WindowsPodSandboxConfig{} }, "windows"},
		"too large":     {func(c *cri.PodSandboxConfig) { c.Labels = map[string]string{"a": strings.Repeat("a", maxConfig)} }, "config has"},
	}.check(t, testNode())
	if _, err := Parse(podConfig(), "kata", testNode()); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), `"runc"`) {
		t.Errorf("unknown handler: got error %v", err)
	}
	if _, err := Parse(nil, "", testNode()); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no config: got error %v", err)
	}
}

// TestStoredRequest parses a stored request that breaks rules of several subjects.
func TestStoredRequest(t *testing.T) {
	c := podConfig()
	c.Metadata.Name = "a\nb"
	c.DnsConfig = &cri.DNSConfig{Servers: []string{"1.1.1.1\n"}}
	namespaceOptions(c).Network = cri.NamespaceMode_NODE
	namespaceOptions(c).UsernsOptions = &cri.UserNamespace{Mode: cri.NamespaceMode_POD}
	spec, err := ParseStored(c, "removed")
	for _, field := range []string{"metadata.name", "dns_config.servers", "userns_options.uids"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("error %v does not name %s", err, field)
		}
	}
	if spec.Handler != "removed" || spec.Name.Name != "a\nb" || !spec.Namespaces.HostNetwork || spec.Namespaces.User == nil || spec.DNS == nil {
		t.Errorf("got %+v", spec)
	}
}

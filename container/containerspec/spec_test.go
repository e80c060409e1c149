package containerspec

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/qos"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// testConfig returns a valid request. Its Linux.SecurityContext is set.
func testConfig() *cri.ContainerConfig {
	return &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: "a"}, Image: &cri.ImageSpec{Image: "busybox"},
		Command: []string{"/bin/true"}, LogPath: "a.log",
		Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{}},
	}
}

func testPod() *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{LogDirectory: "/var/log/pods/p"}
}

// testNode returns a node whose runtime handler supports everything but classes.
func testNode(host oci.Host) *Node {
	return &Node{
		Handler: "runc", SELinux: host.SELinux, Rules: oci.NewBuilder(host, oci.Defaults{AppArmorProfile: "default"}),
		MountOptions: func() []string { return append([]string{"rro"}, mountOptions...) },
	}
}

func TestParseRefuses(t *testing.T) {
	sc := func(c *cri.ContainerConfig) *cri.LinuxContainerSecurityContext { return c.Linux.SecurityContext }
	local := &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost}
	for name, tc := range map[string]struct {
		change func(*cri.ContainerConfig)
		says   string
	}{
		"no name":        {func(c *cri.ContainerConfig) { c.Metadata = nil }, "config.metadata.name"},
		"name too long":  {func(c *cri.ContainerConfig) { c.Metadata.Name = strings.Repeat("a", maxName+1) }, "config.metadata.name"},
		"line in name":   {func(c *cri.ContainerConfig) { c.Metadata.Name = "a\nb" }, "config.metadata.name"},
		"no image":       {func(c *cri.ContainerConfig) { c.Image = nil }, "config.image"},
		"command NUL":    {func(c *cri.ContainerConfig) { c.Command = []string{"a", "b\x00"} }, "config.command[1]"},
		"args NUL":       {func(c *cri.ContainerConfig) { c.Args = []string{"\x00"} }, "config.args[0]"},
		"directory":      {func(c *cri.ContainerConfig) { c.WorkingDir = "tmp" }, "config.working_dir"},
		"env key":        {func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{{Key: "A"}, {Key: "B=C"}} }, "config.envs[1]"},
		"env empty key":  {func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{{Value: []byte("x")}} }, "config.envs[0]"},
		"env NUL":        {func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{{Key: "A", Value: []byte{0}}} }, "NUL"},
		"env not UTF-8":  {func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{{Key: "A", Value: []byte{0xff}}} }, `env "A"`},
		"mount":          {func(c *cri.ContainerConfig) { c.Mounts = []*cri.Mount{{ContainerPath: "rel", HostPath: "/"}} }, "config.mounts[0]"},
		"log climbs":     {func(c *cri.ContainerConfig) { c.LogPath = "../x" }, "config.log_path"},
		"log absolute":   {func(c *cri.ContainerConfig) { c.LogPath = "/x" }, "config.log_path"},
		"log too long":   {func(c *cri.ContainerConfig) { c.LogPath = strings.Repeat("a", 256) }, "config.log_path"},
		"logs too deep":  {func(c *cri.ContainerConfig) { c.LogPath = strings.Repeat("a/", 2048) + "b" }, "config.log_path"},
		"log and pod":    {func(c *cri.ContainerConfig) { c.LogPath = strings.Repeat("a/", 2045) + "b" }, "the pod's log_directory"},
		"CDI device":     {func(c *cri.ContainerConfig) { c.CDIDevices = []*cri.CDIDevice{{Name: "gpu"}} }, "config.CDI_devices[0].name"},
		"CDI annotation": {func(c *cri.ContainerConfig) { c.Annotations = map[string]string{"cdi.k8s.io/x": "gpu"} }, "config.annotations"},
		"group only":     {func(c *cri.ContainerConfig) { sc(c).RunAsGroup = &cri.Int64Value{Value: 1} }, "run_as_group"},
		"user twice":     {func(c *cri.ContainerConfig) { sc(c).RunAsUser = &cri.Int64Value{}; sc(c).RunAsUsername = "a" }, "exclude"},
		"user range":     {func(c *cri.ContainerConfig) { sc(c).RunAsUser = &cri.Int64Value{Value: 1 << 32} }, "run_as_user"},
		"user colon":     {func(c *cri.ContainerConfig) { sc(c).RunAsUsername = "a:b" }, "run_as_username"},
		"username range": {func(c *cri.ContainerConfig) { sc(c).RunAsUsername = "4294967296" }, "run_as_username"},
		"supplemental":   {func(c *cri.ContainerConfig) { sc(c).SupplementalGroups = []int64{-1} }, "supplemental_groups[0]"},
		"group policy":   {func(c *cri.ContainerConfig) { sc(c).SupplementalGroupsPolicy = 7 }, "supplemental_groups_policy"},
		"unknown stop":   {func(c *cri.ContainerConfig) { c.StopSignal = 999 }, "config.stop_signal"},
		"group negative": {func(c *cri.ContainerConfig) {
			sc(c).RunAsUser = &cri.Int64Value{Value: 1}
			sc(c).RunAsGroup = &cri.Int64Value{Value: -5}
		}, "run_as_group"},
		"PID namespace": {func(c *cri.ContainerConfig) { sc(c).NamespaceOptions = &cri.NamespaceOption{Pid: 9} }, "namespace_options.pid"},
		"privileged":    {func(c *cri.ContainerConfig) { sc(c).Privileged = true }, "config.linux.security_context.privileged"},
		"capability":    {func(c *cri.ContainerConfig) { sc(c).Capabilities = &cri.Capability{AddCapabilities: []string{"FLY"}} }, "config.linux.security_context.capabilities.add_capabilities"},
		"masked path":   {func(c *cri.ContainerConfig) { sc(c).MaskedPaths = []string{"/a", "b"} }, "masked_paths[1]"},
		"readonly path": {func(c *cri.ContainerConfig) { sc(c).ReadonlyPaths = []string{"/a/../b"} }, "readonly_paths[0]"},
		"seccomp":       {func(c *cri.ContainerConfig) { sc(c).Seccomp = local }, "config.linux.security_context.seccomp"},
		"AppArmor":      {func(c *cri.ContainerConfig) { sc(c).Apparmor = local }, "config.linux.security_context.apparmor"},
		"SELinux":       {func(c *cri.ContainerConfig) { sc(c).SelinuxOptions = &cri.SELinuxOption{Type: "a b"} }, "config.linux.security_context.selinux_options.type"},
		"resources":     {func(c *cri.ContainerConfig) { c.Linux.Resources = &cri.LinuxContainerResources{CpuShares: 1} }, "config.linux.resources.cpu_shares"},
		"RDT class":     {func(c *cri.ContainerConfig) { c.Annotations = map[string]string{"io.kubernetes.cri.rdt-class": "none"} }, "annotation"},
	} {
		c := testConfig()
		tc.change(c)
		node := testNode(oci.Host{SELinux: true, AppArmor: true})
		node.RDT = testRDT(t)
		if spec, err := Parse(Request{Config: c, Pod: testPod(), Node: node}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: got %+v, %v; want an error about %s", name, spec, err, tc.says)
		}
	}
}

func TestParseAccepts(t *testing.T) {
	sc := func(c *cri.ContainerConfig) *cri.LinuxContainerSecurityContext { return c.Linux.SecurityContext }
	for name, change := range map[string]func(*cri.ContainerConfig){
		"plain":                func(*cri.ContainerConfig) {},
		"no security context":  func(c *cri.ContainerConfig) { c.Linux = nil },
		"unusual name":         func(c *cri.ContainerConfig) { c.Metadata.Name = "../a b/c;ä" },
		"long name":            func(c *cri.ContainerConfig) { c.Metadata.Name = strings.Repeat("a", maxName) },
		"labels":               func(c *cri.ContainerConfig) { c.Labels = map[string]string{"": "\n", "a b/=": "/"} },
		"no log":               func(c *cri.ContainerConfig) { c.LogPath = "" },
		"unusual environment":  func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{{Key: "a b.c-d/é"}, {Key: "1"}, {Key: "1"}} },
		"repeated groups":      func(c *cri.ContainerConfig) { sc(c).SupplementalGroups = []int64{5, 5, 0} },
		"mount path with ..":   func(c *cri.ContainerConfig) { c.Mounts = []*cri.Mount{{ContainerPath: "/a/../b", HostPath: "/"}} },
		"target PID namespace": func(c *cri.ContainerConfig) { sc(c).NamespaceOptions = &cri.NamespaceOption{Pid: 3, TargetId: "ab"} },
		"two mounts at a path": func(c *cri.ContainerConfig) {
			c.Mounts = []*cri.Mount{{ContainerPath: "/a", HostPath: "/"}, {ContainerPath: "/a/", HostPath: "/"}}
		},
	} {
		c := testConfig()
		change(c)
		for _, node := range []*Node{nil, testNode(oci.Host{})} {
			if _, err := Parse(Request{Config: c, Pod: testPod(), Node: node}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestParseWithoutNode checks that the rules of the node do not apply to the stored
// config of an existing container: the node may have changed since its creation.
func TestParseWithoutNode(t *testing.T) {
	c := testConfig()
	c.Annotations = map[string]string{"io.kubernetes.cri.rdt-class": "gone"}
	c.Mounts = []*cri.Mount{{ContainerPath: "/a", HostPath: "/a", Readonly: true, RecursiveReadOnly: true}}
	c.Linux.SecurityContext.Apparmor = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: "p"}
	c.Linux.Resources = &cri.LinuxContainerResources{CpusetCpus: "4000"}
	if _, err := Parse(Request{Config: c, Pod: testPod()}); err != nil {
		t.Error(err)
	}
	node := testNode(oci.Host{})
	node.MountOptions = nil
	if _, err := Parse(Request{Config: c, Pod: testPod(), Node: node}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("with a node: %v", err)
	}
}

func TestParseFields(t *testing.T) {
	c := testConfig()
	c.Metadata.Attempt = 3
	c.Image.UserSpecifiedImage = "busybox:latest"
	c.Tty, c.Stdin, c.StdinOnce = true, true, true
	c.WorkingDir = "/a/../b/"
	c.StopSignal = cri.Signal_SIGNAL_SIGRTMAXMINUS14
	c.CDIDevices = []*cri.CDIDevice{{Name: "v.com/c=d"}, {Name: "v.com/c=d"}}
	c.Linux.SecurityContext = &cri.LinuxContainerSecurityContext{
		ReadonlyRootfs: true, NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_TARGET, TargetId: "t"},
		Apparmor: &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: "p"},
		Seccomp:  &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: "/s.json"},
	}
	s, err := Parse(Request{Config: c, Pod: testPod(), Node: testNode(oci.Host{AppArmor: true})})
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "a" || s.Attempt != 3 || s.Image != (Image{"busybox", "busybox:latest"}) || s.LogPath != "/var/log/pods/p/a.log" {
		t.Errorf("metadata: %+v", s)
	}
	if s.Stdio != (Stdio{true, true, true}) || s.Command.WorkingDir != "/b" || s.StopSignal != 50 {
		t.Errorf("process: %+v", s)
	}
	if len(s.CDIDevices) != 1 || s.PID != (PIDNamespace{cri.NamespaceMode_TARGET, "t"}) {
		t.Errorf("devices and namespaces: %+v", s)
	}
	if x := s.Security; !x.ReadonlyRootFS || x.Privileged || x.AppArmorProfile != "p" || x.SeccompFile != "/s.json" || x.Context != c.Linux.SecurityContext {
		t.Errorf("security: %+v", x)
	}
}

func TestPrivilegedPod(t *testing.T) {
	c, pod := testConfig(), testPod()
	c.Linux.SecurityContext.Privileged = true
	if _, err := Parse(Request{Config: c, Pod: pod}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("in a pod that is not privileged: %v", err)
	}
	pod.Linux = &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{Privileged: true}}
	if s, err := Parse(Request{Config: c, Pod: pod}); err != nil || !s.Security.Privileged {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestGuestCannotJoinAnotherContainer(t *testing.T) {
	c, node := testConfig(), testNode(oci.Host{})
	c.Linux.SecurityContext.NamespaceOptions = &cri.NamespaceOption{Pid: cri.NamespaceMode_TARGET, TargetId: "t"}
	node.Guest = true
	if _, err := Parse(Request{Config: c, Pod: testPod(), Node: node}); !errdefs.IsNotImplemented(err) {
		t.Errorf("got %v", err)
	}
}

func TestClasses(t *testing.T) {
	c, pod, node := testConfig(), testPod(), testNode(oci.Host{})
	node.RDT = testRDT(t)
	pod.Annotations = map[string]string{"rdt.resources.beta.kubernetes.io/container.a": "gold"}
	s, err := Parse(Request{Config: c, Pod: pod, Node: node})
	if err != nil || s.RDT == nil || s.RDT.ClosID != "gold" || s.RDT.L3CacheSchema != "L3:0=ff" || s.RDT.MemBwSchema != "MB:0=70" || s.BlockIO != nil {
		t.Errorf("got %+v, %v", s, err)
	}
	c.Annotations = map[string]string{"io.kubernetes.cri.rdt-class": "none"}
	if _, err := Parse(Request{Config: c, Pod: pod, Node: node}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), `annotation "io.kubernetes.cri.rdt-class"`) {
		t.Errorf("a class that does not exist: %v", err)
	}
	pod.Annotations["blockio.resources.beta.kubernetes.io/pod"] = "x"
	if _, err := Parse(Request{Config: c, Pod: pod, Node: node}); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "blockio.resources") {
		t.Errorf("a node without classes of block I/O: %v", err)
	}
}

// testRDT returns RDT classes over files that look like a node with RDT.
func testRDT(t *testing.T) qos.RDT {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, dir, "schemata", "L3:0=fff\n")
	writeFile(t, dir, "rdt.yaml", "classes: {gold: {l3CacheSchema: 'L3:0=ff', memBwSchema: 'MB:0=70'}}\n")
	return qos.RDT{File: dir + "/rdt.yaml", Root: dir}
}

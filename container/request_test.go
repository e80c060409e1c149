package container

import (
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestCommandOf(t *testing.T) {
	image := ispec.ImageConfig{Entrypoint: []string{"entry"}, Cmd: []string{"cmd"}}
	for name, tc := range map[string]struct{ command, args, want []string }{
		"neither":      {nil, nil, []string{"entry", "cmd"}},
		"args only":    {nil, []string{"a"}, []string{"entry", "a"}},
		"command only": {[]string{"c"}, nil, []string{"c"}},
		"both":         {[]string{"c"}, []string{"a"}, []string{"c", "a"}},
	} {
		if got := commandOf(&cri.ContainerConfig{Command: tc.command, Args: tc.args}, image); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got := commandOf(&cri.ContainerConfig{Args: []string{"a"}}, ispec.ImageConfig{Cmd: []string{"cmd"}}); !slices.Equal(got, []string{"a"}) {
		t.Errorf("args over CMD without ENTRYPOINT: %v", got)
	}
}

func TestEnvOf(t *testing.T) {
	image := ispec.ImageConfig{Env: []string{"A=1", "B=2", "=bad", "alone", "A=3"}}
	c := &cri.ContainerConfig{Tty: true, Envs: []*cri.KeyValue{{Key: "B", Value: []byte("x=y")}, {Key: "HOSTNAME", Value: []byte("own")}}}
	want := []string{"A=3", "B=x=y", "HOSTNAME=own", "PATH=" + defaultPath, "HOME=/root", "TERM=xterm"}
	if got := envOf(c, image, "pod", "/root"); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestWorkingDir(t *testing.T) {
	for in, want := range map[string]string{"": "/", "/a/": "/a", "a/b": "/a/b", "../../etc": "/etc", "/a/../../b": "/b"} {
		if got := workingDir(&cri.ContainerConfig{}, ispec.ImageConfig{WorkingDir: in}); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
	if got := workingDir(&cri.ContainerConfig{WorkingDir: "/r"}, ispec.ImageConfig{WorkingDir: "/i"}); got != "/r" {
		t.Errorf("the request's: %q", got)
	}
}

func TestSignalOf(t *testing.T) {
	for image, want := range map[string]unix.Signal{
		"": unix.SIGTERM, "SIGQUIT": unix.SIGQUIT, "quit": unix.SIGQUIT, "9": unix.SIGKILL, "SIGRTMIN": 34, "SIGRTMIN+3": 37, "RTMAX-1": 63, "SIGCLD": unix.SIGCHLD,
	} {
		if got, err := signalOf(0, image); err != nil || got != want {
			t.Errorf("%q: %d, %v", image, got, err)
		}
	}
	for _, image := range []string{"SIGNOPE", "0", "65", "-1", "SIGRTMIN+31", "SIGRTMIN+x", "\x00"} {
		if got, err := signalOf(0, image); err != nil || got != unix.SIGTERM {
			t.Errorf("%q: %d, %v", image, got, err)
		}
	}
	// Every signal that the CRI names can be sent, and the request's wins.
	for number := range cri.Signal_name {
		got, err := signalOf(cri.Signal(number), "SIGHUP")
		if err != nil || got <= 0 || got > rtMax {
			t.Errorf("%s: %d, %v", cri.Signal(number), got, err)
		}
	}
	if got, _ := signalOf(cri.Signal_SIGNAL_SIGRTMAXMINUS14, ""); got != 50 {
		t.Errorf("RTMAX-14 is %d", got)
	}
	if _, err := signalOf(cri.Signal(999), ""); !errdefs.IsInvalidArgument(err) {
		t.Errorf("unknown number: %v", err)
	}
}

func TestValidate(t *testing.T) {
	sc := func(c *cri.ContainerConfig) *cri.LinuxContainerSecurityContext { return c.Linux.SecurityContext }
	for name, tc := range map[string]struct {
		change func(*cri.ContainerConfig)
		says   string
	}{
		"no name":       {func(c *cri.ContainerConfig) { c.Metadata = nil }, "metadata.name"},
		"name too long": {func(c *cri.ContainerConfig) { c.Metadata.Name = strings.Repeat("a", maxName+1) }, "metadata.name"},
		"line in name":  {func(c *cri.ContainerConfig) { c.Metadata.Name = "a\nb" }, "metadata.name"},
		"no image":      {func(c *cri.ContainerConfig) { c.Image = nil }, "image"},
		"env key":       {func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{{Key: "A"}, {Key: "B=C"}} }, "envs[1]"},
		"env empty key": {func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{{Value: []byte("x")}} }, "envs[0]"},
		"env NUL":       {func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{{Key: "A", Value: []byte{0}}} }, "NUL"},
		"mount":         {func(c *cri.ContainerConfig) { c.Mounts = []*cri.Mount{{ContainerPath: "rel", HostPath: "/"}} }, "mounts[0]"},
		"log climbs":    {func(c *cri.ContainerConfig) { c.LogPath = "../x" }, "log_path"},
		"log absolute":  {func(c *cri.ContainerConfig) { c.LogPath = "/x" }, "log_path"},
		"log too long":  {func(c *cri.ContainerConfig) { c.LogPath = strings.Repeat("a", 256) }, "log_path"},
		"logs too deep": {func(c *cri.ContainerConfig) { c.LogPath = strings.Repeat("a/", 2048) + "b" }, "log_path"},
		"mount too long": {func(c *cri.ContainerConfig) {
			c.Mounts = []*cri.Mount{{ContainerPath: "/" + strings.Repeat("a", 256), HostPath: "/"}}
		}, "mounts[0]: container_path"},
		"source too long": {func(c *cri.ContainerConfig) {
			c.Mounts = []*cri.Mount{{ContainerPath: "/a", HostPath: strings.Repeat("/a", 2048)}}
		}, "mounts[0]: host_path"},
		"sub-path too long": {func(c *cri.ContainerConfig) {
			c.Mounts = []*cri.Mount{{ContainerPath: "/a", Image: &cri.ImageSpec{Image: "i"}, ImageSubPath: strings.Repeat("a", 256)}}
		}, "mounts[0]: image_sub_path"},
		"device too long": {func(c *cri.ContainerConfig) {
			c.Devices = []*cri.Device{{ContainerPath: "/" + strings.Repeat("a", 256), HostPath: "/dev/null", Permissions: "r"}}
		}, "devices[0].container_path"},
		"group only":   {func(c *cri.ContainerConfig) { sc(c).RunAsGroup = &cri.Int64Value{Value: 1} }, "run_as_group"},
		"user twice":   {func(c *cri.ContainerConfig) { sc(c).RunAsUser = &cri.Int64Value{}; sc(c).RunAsUsername = "a" }, "exclude"},
		"user range":   {func(c *cri.ContainerConfig) { sc(c).RunAsUser = &cri.Int64Value{Value: 1 << 32} }, "run_as_user"},
		"supplemental": {func(c *cri.ContainerConfig) { sc(c).SupplementalGroups = []int64{-1} }, "supplemental_groups[0]"},
		"unknown stop": {func(c *cri.ContainerConfig) { c.StopSignal = 999 }, "stop_signal"},
		"mount option": {func(c *cri.ContainerConfig) {
			c.Mounts = []*cri.Mount{{ContainerPath: "/a", HostPath: "/", MountOptions: []string{"dev"}}}
		}, "mount_options"},
		"group no number": {func(c *cri.ContainerConfig) {
			sc(c).RunAsUser = &cri.Int64Value{Value: 1}
			sc(c).RunAsGroup = &cri.Int64Value{Value: -5}
		}, "run_as_group"},
	} {
		c := shell("a", "x")
		tc.change(c)
		if err := validate(c); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*cri.ContainerConfig){
		"plain":            func(*cri.ContainerConfig) {},
		"odd name":         func(c *cri.ContainerConfig) { c.Metadata.Name = "../a b/c;ä" },
		"long name":        func(c *cri.ContainerConfig) { c.Metadata.Name = strings.Repeat("a", maxName) },
		"labels":           func(c *cri.ContainerConfig) { c.Labels = map[string]string{"": "\n", "a b/=": "/"} },
		"no log":           func(c *cri.ContainerConfig) { c.LogPath = "" },
		"odd env":          func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{{Key: "a b.c-d/é"}, {Key: "1"}, {Key: "1"}} },
		"groups twice":     func(c *cri.ContainerConfig) { sc(c).SupplementalGroups = []int64{5, 5, 0} },
		"mount path by ..": func(c *cri.ContainerConfig) { c.Mounts = []*cri.Mount{{ContainerPath: "/a/../b", HostPath: "/"}} },
		"mount twice": func(c *cri.ContainerConfig) {
			c.Mounts = []*cri.Mount{{ContainerPath: "/a", HostPath: "/"}, {ContainerPath: "/a/", HostPath: "/"}}
		},
	} {
		c := shell("a", "x")
		change(c)
		if err := validate(c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPrivilegedNeedsPrivilegedPod(t *testing.T) {
	c := shell("a", "x")
	c.Linux.SecurityContext.Privileged = true
	if err := validateInPod(c, Pod{Ready: true}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
}

func TestRecordKeepsMessages(t *testing.T) {
	c := shell("a", "x")
	c.Envs = []*cri.KeyValue{{Key: "RAW", Value: []byte{0xff, 0xfe}}}
	p := &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: "p"}, Labels: map[string]string{"k": "v"}}
	var r record
	if err := r.setMessages(c, p); err != nil {
		t.Fatal(err)
	}
	gotC, gotP, err := r.messages()
	if err != nil || !proto.Equal(gotC, c) || !proto.Equal(gotP, p) {
		t.Errorf("%v, %v, %v", gotC, gotP, err)
	}
}

package containerspec

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func mustParse(t *testing.T, c *cri.ContainerConfig) *Spec {
	t.Helper()
	s, err := Parse(Request{Config: c, Pod: testPod()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestArgs(t *testing.T) {
	image := ispec.ImageConfig{Entrypoint: []string{"entry"}, Cmd: []string{"cmd"}}
	for name, tc := range map[string]struct {
		command, args []string
		image         ispec.ImageConfig
		want          []string
	}{
		"neither":                 {nil, nil, image, []string{"entry", "cmd"}},
		"args only":               {nil, []string{"a"}, image, []string{"entry", "a"}},
		"command only":            {[]string{"c"}, nil, image, []string{"c"}},
		"both":                    {[]string{"c"}, []string{"a"}, image, []string{"c", "a"}},
		"args without ENTRYPOINT": {nil, []string{"a"}, ispec.ImageConfig{Cmd: []string{"cmd"}}, []string{"a"}},
	} {
		c := testConfig()
		c.Command, c.Args = tc.command, tc.args
		p, err := mustParse(t, c).Process(tc.image)
		if err != nil || !slices.Equal(p.Args, tc.want) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	c := testConfig()
	c.Command = nil
	if _, err := mustParse(t, c).Process(ispec.ImageConfig{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no command: %v", err)
	}
}

func TestEnv(t *testing.T) {
	c := testConfig()
	c.Tty, c.Envs = true, []*cri.KeyValue{{Key: "B", Value: []byte("x=y")}, {Key: "HOSTNAME", Value: []byte("own")}}
	p, err := mustParse(t, c).Process(ispec.ImageConfig{Env: []string{"A=1", "B=2", "=bad", "alone", "A=3"}})
	want := []string{"A=3", "B=x=y", "HOSTNAME=own", "PATH=" + defaultPath, "HOME=/root", "TERM=xterm"}
	if err != nil || !slices.Equal(p.Env(nil, "pod", "/root"), want) {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestWorkingDir(t *testing.T) {
	for dir, want := range map[string]string{"": "/", "/a/": "/a", "a/b": "/a/b", "../../etc": "/etc", "/a/../../b": "/b"} {
		if p, err := mustParse(t, testConfig()).Process(ispec.ImageConfig{WorkingDir: dir}); err != nil || p.WorkingDir != want {
			t.Errorf("%q: %+v, %v", dir, p, err)
		}
	}
	c := testConfig()
	c.WorkingDir = "/r"
	if p, err := mustParse(t, c).Process(ispec.ImageConfig{WorkingDir: "/i"}); err != nil || p.WorkingDir != "/r" {
		t.Errorf("of the request: %+v, %v", p, err)
	}
	c.WorkingDir = "/" + strings.Repeat("a", 256)
	if _, err := mustParse(t, c).Process(ispec.ImageConfig{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("too long: %v", err)
	}
}

func TestStopSignal(t *testing.T) {
	for name, want := range map[string]unix.Signal{
		"": unix.SIGTERM, "SIGQUIT": unix.SIGQUIT, "quit": unix.SIGQUIT, "9": unix.SIGKILL, "SIGRTMIN": 34, "SIGRTMIN+3": 37, "RTMAX-1": 63, "SIGCLD": unix.SIGCHLD,
	} {
		if p, err := mustParse(t, testConfig()).Process(ispec.ImageConfig{StopSignal: name}); err != nil || p.StopSignal != want || len(p.Warnings) != 0 {
			t.Errorf("%q: %+v, %v", name, p, err)
		}
	}
	for _, name := range []string{"SIGNOPE", "0", "65", "-1", "SIGRTMIN+31", "SIGRTMIN+x", "\x00"} {
		if p, err := mustParse(t, testConfig()).Process(ispec.ImageConfig{StopSignal: name}); err != nil || p.StopSignal != unix.SIGTERM || len(p.Warnings) != 1 {
			t.Errorf("%q: %+v, %v", name, p, err)
		}
	}
	// The machine can send every signal that the CRI names, and the request overrides the image.
	for number := range cri.Signal_name {
		c := testConfig()
		c.StopSignal = cri.Signal(number)
		p, err := mustParse(t, c).Process(ispec.ImageConfig{StopSignal: "SIGHUP"})
		if err != nil || !ValidSignal(p.StopSignal) || number != 0 && c.StopSignal != cri.Signal_SIGNAL_SIGHUP && p.StopSignal == unix.SIGHUP {
			t.Errorf("%s: %+v, %v", cri.Signal(number), p, err)
		}
	}
}

func TestImageVolumes(t *testing.T) {
	image := ispec.ImageConfig{Volumes: map[string]struct{}{"/b/": {}, "/a/../b": {}, "relative": {}, "/a": {}}}
	if p, err := mustParse(t, testConfig()).Process(image); err != nil || !slices.Equal(p.Volumes, []string{"/a", "/b"}) {
		t.Errorf("got %+v, %v", p, err)
	}
	many := map[string]struct{}{}
	for i := range maxVolumes + 1 {
		many[fmt.Sprint("/v", i)] = struct{}{}
	}
	for _, volumes := range []map[string]struct{}{many, {"/" + strings.Repeat("a", 256): {}}} {
		if _, err := mustParse(t, testConfig()).Process(ispec.ImageConfig{Volumes: volumes}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%d volumes: %v", len(volumes), err)
		}
	}
}

// TestOperatorEnv checks that the image and the request replace variables of the operator, and
// that these replace the built-in defaults.
func TestOperatorEnv(t *testing.T) {
	c := testConfig()
	c.Envs = []*cri.KeyValue{{Key: "R", Value: []byte("request")}}
	p, err := mustParse(t, c).Process(ispec.ImageConfig{Env: []string{"I=image", "R=image"}})
	if err != nil {
		t.Fatal(err)
	}
	got := p.Env([]string{"I=operator", "R=operator", "O=operator", "PATH=/opt/bin", "O=handler"}, "pod", "/root")
	want := []string{"I=image", "R=request", "O=handler", "PATH=/opt/bin", "HOSTNAME=pod", "HOME=/root"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

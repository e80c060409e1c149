package containerspec

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/criserver/criserver/oci"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// FuzzParse checks that Parse accepts no request whose paths, signals or ids are outside
// their limits, and that Parse and Process do not change the request.
func FuzzParse(f *testing.F) {
	c := testConfig()
	c.StopSignal = cri.Signal_SIGNAL_SIGRTMINPLUS1
	c.Envs = []*cri.KeyValue{{Key: "A", Value: []byte("b")}}
	c.Mounts = []*cri.Mount{{HostPath: "/a", ContainerPath: "/b/../c"}, {Image: &cri.ImageSpec{Image: "i"}, ContainerPath: "/d", ImageSubPath: "e"}}
	c.Devices = []*cri.Device{{HostPath: "/dev/null", Permissions: "rw"}}
	c.Linux.SecurityContext.RunAsUsername = "a"
	b, err := proto.Marshal(c)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, "user:1", "/v")
	node := testNode(oci.Host{SELinux: true, AppArmor: true})
	f.Fuzz(func(t *testing.T, config []byte, imageUser, volume string) {
		c := &cri.ContainerConfig{}
		if proto.Unmarshal(config, c) != nil {
			return
		}
		before := proto.CloneOf(c)
		s, err := Parse(Request{Config: c, Pod: testPod(), Node: node})
		if err != nil {
			return
		}
		if s.LogPath != "" && !strings.HasPrefix(s.LogPath, "/var/log/pods/p") {
			t.Errorf("log path %q", s.LogPath)
		}
		if s.StopSignal != 0 && !ValidSignal(s.StopSignal) {
			t.Errorf("stop signal %d", s.StopSignal)
		}
		for _, m := range s.Mounts {
			if !filepath.IsAbs(m.Destination) || m.Destination == "/" || filepath.Clean(m.Destination) != m.Destination || (m.HostPath == "") == (m.Image == "") {
				t.Errorf("mount %+v", m)
			}
		}
		p, err := s.Process(ispec.ImageConfig{User: imageUser, Volumes: map[string]struct{}{volume: {}}})
		if err == nil {
			if len(p.Args) == 0 || !filepath.IsAbs(p.WorkingDir) || p.User.Account == nil {
				t.Errorf("process %+v", p)
			}
			if id, err := (Accounts{}).Identify(p.User); err == nil && (id.UID > maxID || id.GID > maxID) {
				t.Errorf("user %+v", id)
			}
		}
		if !proto.Equal(c, before) {
			t.Error("the request was changed")
		}
	})
}

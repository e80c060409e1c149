package oci

import (
	"slices"
	"strings"
	"testing"

	"github.com/criserver/criserver/internal/userns"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func userInput() Input {
	in := testInput()
	in.Namespaces.User = "/ns/user"
	in.UserGIDs = []userns.Mapping{{HostID: 65536, Size: 65536}}
	return in
}

func TestUserNamespaceIsJoinedByPath(t *testing.T) {
	s := mustBuild(t, testHost(), userInput()).Spec
	if !slices.Contains(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: "/ns/user"}) {
		t.Errorf("namespaces: got %v, want the user namespace /ns/user", s.Linux.Namespaces)
	}
	// runc warns of a config that has both a path and mappings.
	if len(s.Linux.UIDMappings)+len(s.Linux.GIDMappings) > 0 || s.Version != versionBase {
		t.Errorf("mappings: got %v and %v in version %s, want none in version %s",
			s.Linux.UIDMappings, s.Linux.GIDMappings, s.Version, versionBase)
	}
	if m := mountAt(s, "/sys"); m.Type != "sysfs" {
		t.Errorf("mount at /sys: got %v, want type sysfs", m)
	}
}

func TestTerminalsOfSmallUserNamespaces(t *testing.T) {
	in := userInput()
	for size, want := range map[uint32]bool{65536: true, 6: true, 5: false, 1: false} {
		in.UserGIDs[0].Size = size
		if got := mountAt(mustBuild(t, testHost(), in).Spec, "/dev/pts"); slices.Contains(got.Options, "gid=5") != want {
			t.Errorf("options of /dev/pts with %d gids: got %v, want gid=5: %t", size, got.Options, want)
		}
	}
	if got := mountAt(mustBuild(t, testHost(), testInput()).Spec, "/dev/pts"); !slices.Contains(got.Options, "gid=5") {
		t.Errorf("options of /dev/pts without a user namespace: got %v, want gid=5", got.Options)
	}
}

func TestMappedMounts(t *testing.T) {
	ids := []specs.LinuxIDMapping{{HostID: 65536, Size: 65536}}
	for name, tc := range map[string]struct {
		mount   Mount
		version string
		option  bool
	}{
		"plain":          {Mount{}, versionBase, false},
		"mapped":         {Mount{UIDMappings: ids, GIDMappings: ids}, versionRecursiveMounts, false},
		"with submounts": {Mount{UIDMappings: ids, GIDMappings: ids, MapSubmounts: true}, versionIDMap, true},
		"not mapped":     {Mount{MapSubmounts: true}, versionBase, false},
		"and read-only":  {Mount{UIDMappings: ids, GIDMappings: ids, MapSubmounts: true, ReadOnly: true, RecursiveReadOnly: true}, versionIDMap, true},
	} {
		in := userInput()
		tc.mount.Source, tc.mount.Destination = "/h", "/v"
		// A later mount that needs a lower version must not lower the version of the spec.
		in.Mounts = []Mount{tc.mount, {Source: "/h", Destination: "/w", ReadOnly: true}}
		s := mustBuild(t, testHost(), in).Spec
		m := mountAt(s, "/v")
		if s.Version != tc.version || slices.Contains(m.Options, "ridmap") != tc.option || len(m.UIDMappings) != len(tc.mount.UIDMappings) {
			t.Errorf("%s: got version %s, mount %v, want version %s, ridmap %t, %d uid mappings",
				name, s.Version, m, tc.version, tc.option, len(tc.mount.UIDMappings))
		}
	}
}

func TestDevicesOfUserNamespaces(t *testing.T) {
	in := userInput()
	in.Security = &cri.LinuxContainerSecurityContext{Privileged: true}
	in.Devices = []Device{{HostPath: "/dev/fuse", Access: "rw", LinuxDevice: specs.LinuxDevice{Path: "/dev/other", Type: "c", Major: 10, Minor: 229}}}
	s := mustBuild(t, testHost(), in).Spec
	if m := mountAt(s, "/dev/other"); m == nil || m.Source != "/dev/fuse" || len(s.Linux.Devices) != 0 {
		t.Errorf("device: got mount %v, devices %v, want a mount of /dev/fuse and no devices", m, s.Linux.Devices)
	}
	// A privileged container in a user namespace gets no access to all devices of the host.
	rules := s.Linux.Resources.Devices
	if len(rules) != 2 || rules[0].Allow || !rules[1].Allow || *rules[1].Major != 10 {
		t.Errorf("device rules: got %v, want one that denies all and one that allows major 10", rules)
	}
	in.Namespaces.User = ""
	s = mustBuild(t, testHost(), in).Spec
	if mountAt(s, "/dev/other") != nil || len(s.Linux.Devices) != 1 || !s.Linux.Resources.Devices[0].Allow {
		t.Errorf("without a user namespace: got devices %v, rules %v, want one device and a rule that allows all",
			s.Linux.Devices, s.Linux.Resources.Devices)
	}
}

// TestSysWithHostNetwork checks /sys of a container whose user namespace has no rights over its network namespace, so
// that it cannot mount a sysfs.
func TestSysWithHostNetwork(t *testing.T) {
	for _, tt := range []struct {
		name       string
		ns         Namespaces
		privileged bool
		want       string
	}{
		{"own network", Namespaces{Net: "/ns/net", User: "/ns/user"}, false, "sysfs nosuid noexec nodev ro"},
		{"network of the host", Namespaces{User: "/ns/user"}, false, "bind nosuid noexec nodev rbind rprivate ro rro"},
		{"privileged", Namespaces{User: "/ns/user"}, true, "bind nosuid noexec nodev rbind rprivate rw"},
		{"without a user namespace", Namespaces{}, false, "sysfs nosuid noexec nodev ro"},
	} {
		in := testInput()
		in.Namespaces = tt.ns
		in.Security = &cri.LinuxContainerSecurityContext{Privileged: tt.privileged}
		res, err := NewBuilder(testHost(), Defaults{}).Build(in)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range res.Spec.Mounts {
			if got := strings.Join(append([]string{m.Type}, m.Options...), " "); m.Destination == "/sys" && got != tt.want {
				t.Errorf("%s: /sys is %q, want %q", tt.name, got, tt.want)
			}
		}
	}
}

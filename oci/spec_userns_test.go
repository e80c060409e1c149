package oci

import (
	"slices"
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
		t.Errorf("namespaces %v", s.Linux.Namespaces)
	}
	// runc warns of a config that has both a path and mappings.
	if len(s.Linux.UIDMappings)+len(s.Linux.GIDMappings) > 0 || s.Version != versionBase {
		t.Errorf("mappings %v %v, version %s", s.Linux.UIDMappings, s.Linux.GIDMappings, s.Version)
	}
	if m := mountAt(s, "/sys"); m.Type != "sysfs" {
		t.Errorf("sysfs of the pod's own network: %v", m)
	}
}

func TestTerminalsOfSmallUserNamespaces(t *testing.T) {
	in := userInput()
	for size, want := range map[uint32]bool{65536: true, 6: true, 5: false, 1: false} {
		in.UserGIDs[0].Size = size
		if got := mountAt(mustBuild(t, testHost(), in).Spec, "/dev/pts"); slices.Contains(got.Options, "gid=5") != want {
			t.Errorf("%d groups: %v", size, got.Options)
		}
	}
	if got := mountAt(mustBuild(t, testHost(), testInput()).Spec, "/dev/pts"); !slices.Contains(got.Options, "gid=5") {
		t.Errorf("without a user namespace: %v", got.Options)
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
		// A later mount of less must not lower the version.
		in.Mounts = []Mount{tc.mount, {Source: "/h", Destination: "/w", ReadOnly: true}}
		s := mustBuild(t, testHost(), in).Spec
		m := mountAt(s, "/v")
		if s.Version != tc.version || slices.Contains(m.Options, "ridmap") != tc.option || len(m.UIDMappings) != len(tc.mount.UIDMappings) {
			t.Errorf("%s: version %s, %v", name, s.Version, m)
		}
	}
}

func TestDevicesOfUserNamespaces(t *testing.T) {
	in := userInput()
	in.Security = &cri.LinuxContainerSecurityContext{Privileged: true}
	in.Devices = []Device{{HostPath: "/dev/fuse", Access: "rw", LinuxDevice: specs.LinuxDevice{Path: "/dev/other", Type: "c", Major: 10, Minor: 229}}}
	s := mustBuild(t, testHost(), in).Spec
	if m := mountAt(s, "/dev/other"); m == nil || m.Source != "/dev/fuse" || len(s.Linux.Devices) != 0 {
		t.Errorf("mount %v, nodes to be made %v", m, s.Linux.Devices)
	}
	// Privileges end at the namespace: all of the host's devices are not for it.
	rules := s.Linux.Resources.Devices
	if len(rules) != 2 || rules[0].Allow || !rules[1].Allow || *rules[1].Major != 10 {
		t.Errorf("rules %v", rules)
	}
	in.Namespaces.User = ""
	s = mustBuild(t, testHost(), in).Spec
	if mountAt(s, "/dev/other") != nil || len(s.Linux.Devices) != 1 || !s.Linux.Resources.Devices[0].Allow {
		t.Errorf("without a user namespace: %v, %v", s.Linux.Devices, s.Linux.Resources.Devices)
	}
}

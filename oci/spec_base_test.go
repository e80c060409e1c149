package oci

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/oci/basespec"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestBase checks that a config starts from the base config, and that the request takes
// precedence.
func TestBase(t *testing.T) {
	limit := int64(7)
	in := testInput()
	in.Base = &basespec.Base{
		Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 1, Hard: 1}, {Type: "RLIMIT_NOFILE", Soft: 10, Hard: 5000}},
		Capabilities: []string{"KILL", "CAP_SYS_ADMIN", "CAP_SYS_TIME"},
		IOPriority:   &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE},
		Mounts: []specs.Mount{
			{Destination: "/scratch", Type: "tmpfs", Source: "tmpfs"},
			{Destination: "/data", Type: "tmpfs", Source: "tmpfs"},
		},
		Hooks:       &specs.Hooks{Poststop: make([]specs.Hook, 1, 10)},
		Annotations: map[string]string{"a": "base", "b": "base"},
		PidsLimit:   &limit,
		Unified:     map[string]string{"memory.high": "1", "memory.low": "1"},
		Personality: &specs.LinuxPersonality{Domain: specs.PerLinux32},
	}
	in.Annotations = map[string]string{"b": "request", "c": "request"}
	in.Mounts = []Mount{{Source: "/src", Destination: "/data"}}
	in.Resources = &cri.LinuxContainerResources{Unified: map[string]string{"memory.high": "2"}}
	in.Security = caps([]string{"NET_ADMIN"}, []string{"SYS_ADMIN"}, nil)
	defaults := Defaults{PidsLimit: 100, Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 3, Hard: 3}, {Type: "RLIMIT_NPROC", Soft: 4, Hard: 4}}}
	r, err := NewBuilder(testHost(), defaults).Build(in)
	if err != nil {
		t.Fatal(err)
	}
	s := r.Spec
	wantLimits := []specs.POSIXRlimit{{Type: "RLIMIT_NPROC", Soft: 4, Hard: 4}, {Type: "RLIMIT_CORE", Soft: 1, Hard: 1}, {Type: "RLIMIT_NOFILE", Soft: 10, Hard: 1000}}
	if !slices.Equal(s.Process.Rlimits, wantLimits) {
		t.Errorf("rlimits: got %+v, want %+v", s.Process.Rlimits, wantLimits)
	}
	if want := []string{"CAP_KILL", "CAP_NET_ADMIN"}; !slices.Equal(s.Process.Capabilities.Bounding, want) {
		t.Errorf("capabilities: got %q, want %q", s.Process.Capabilities.Bounding, want)
	}
	if s.Process.IOPriority == nil || s.Version != versionRecursiveMounts || s.Linux.Personality == nil {
		t.Errorf("got I/O priority %v, version %s, personality %v", s.Process.IOPriority, s.Version, s.Linux.Personality)
	}
	if m := mountAt(s, "/scratch"); m == nil || m.Type != "tmpfs" {
		t.Errorf("mount at /scratch: got %+v, want the tmpfs of the base config", m)
	}
	if m := mountAt(s, "/data"); m == nil || m.Source != "/src" {
		t.Errorf("mount at /data: got %+v, want the requested mount", m)
	}
	if want := map[string]string{"a": "base", "b": "request", "c": "request"}; !maps.Equal(s.Annotations, want) {
		t.Errorf("annotations: got %v, want %v", s.Annotations, want)
	}
	if want := map[string]string{"memory.high": "2", "memory.low": "1"}; *s.Linux.Resources.Pids.Limit != 7 || !maps.Equal(s.Linux.Resources.Unified, want) {
		t.Errorf("resources: got %+v", s.Linux.Resources)
	}
	if s.Hooks.Poststop = append(s.Hooks.Poststop, specs.Hook{Path: "/x"}); in.Base.Hooks.Poststop[:2][1].Path != "" {
		t.Error("the config shares its hooks with the base config")
	}
}

// TestBaseDevices checks that the rules of the base config decide about its devices, and that a
// requested device at the same path replaces the node.
func TestBaseDevices(t *testing.T) {
	major, minor := int64(10), int64(229)
	in := testInput()
	in.Base = &basespec.Base{
		Devices:     []specs.LinuxDevice{{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229}, {Path: "/dev/x", Type: "c", Major: 1, Minor: 3}},
		DeviceRules: []specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rw"}},
	}
	in.Devices = []Device{{LinuxDevice: specs.LinuxDevice{Path: "/dev/x", Type: "c", Major: 1, Minor: 5}, Access: "r"}}
	l := mustBuild(t, testHost(), in).Spec.Linux
	if len(l.Devices) != 2 || l.Devices[0].Path != "/dev/fuse" || l.Devices[1].Minor != 5 {
		t.Errorf("devices: got %+v, want /dev/fuse of the base config and /dev/x of the request", l.Devices)
	}
	if rules := l.Resources.Devices; len(rules) != 3 || rules[0].Allow || rules[1].Access != "rw" || rules[2].Access != "r" {
		t.Errorf("rules: got %+v, want deny, the rule of the base config, the rule of the request", rules)
	}
}

func TestCheckBase(t *testing.T) {
	v1 := testHost()
	v1.CgroupV2 = false
	for name, tc := range map[string]struct {
		host Host
		base basespec.Base
		want string
	}{
		"capability":  {testHost(), basespec.Base{Capabilities: []string{"CAP_X"}}, `process.capabilities.bounding: "CAP_X" is not a capability`},
		"unified":     {testHost(), basespec.Base{Unified: map[string]string{"cgroup.procs": "1"}}, "linux.resources.unified"},
		"cgroup v1":   {v1, basespec.Base{Unified: map[string]string{"memory.high": "1"}}, "linux.resources.unified: this host has cgroup v1"},
		"valid":       {testHost(), basespec.Base{Capabilities: []string{"kill"}, Unified: map[string]string{"memory.high": "1"}}, ""},
		"empty on v1": {v1, basespec.Base{}, ""},
	} {
		err := NewBuilder(tc.host, Defaults{}).CheckBase(&tc.base)
		if (err != nil) != (tc.want != "") || err != nil && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
}

// TestPrivilegedDevicesOfHandlers checks the device rules of privileged containers whose handler
// restricts devices.
func TestPrivilegedDevicesOfHandlers(t *testing.T) {
	for onlyOwn, want := range map[bool]bool{false: true, true: false} {
		in := testInput()
		in.Security, in.OnlyOwnDevices = &cri.LinuxContainerSecurityContext{Privileged: true}, onlyOwn
		if rules := mustBuild(t, testHost(), in).Spec.Linux.Resources.Devices; len(rules) != 1 || rules[0].Allow != want {
			t.Errorf("only own devices %v: got rules %+v, want one that allows: %v", onlyOwn, rules, want)
		}
	}
}

func TestWritableCgroups(t *testing.T) {
	for name, tc := range map[string]struct {
		v2, writable, privileged bool
		want                     string
	}{
		"default":    {true, false, false, "ro"},
		"writable":   {true, true, false, "rw"},
		"v1":         {false, true, false, "ro"},
		"privileged": {true, false, true, "rw"},
	} {
		h, in := testHost(), testInput()
		h.CgroupV2, in.WritableCgroups = tc.v2, tc.writable
		in.Security = &cri.LinuxContainerSecurityContext{Privileged: tc.privileged}
		s := mustBuild(t, h, in).Spec
		if m := mountAt(s, "/sys/fs/cgroup"); !slices.Contains(m.Options, tc.want) {
			t.Errorf("%s: got options %q, want %s", name, m.Options, tc.want)
		}
		if m := mountAt(s, "/sys"); tc.writable && !slices.Contains(m.Options, "ro") {
			t.Errorf("%s: /sys has options %q, want ro", name, m.Options)
		}
	}
}

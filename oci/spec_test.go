package oci

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func testHost() Host {
	return Host{
		CgroupV2: true, Hugetlb: true, SwapAccounting: true, Seccomp: true,
		Capabilities: append(DefaultCapabilities(), "CAP_NET_ADMIN", "CAP_SYS_ADMIN"),
		HardRlimits:  map[string]uint64{"RLIMIT_NOFILE": 1000},
	}
}

func testInput() Input {
	return Input{
		Args: []string{"/bin/sh"}, Env: []string{"PATH=/bin"}, Cwd: "/", RootFS: "/r", CgroupsPath: "/pod/c",
		Namespaces: Namespaces{Net: "/ns/net", IPC: "/ns/ipc", UTS: "/ns/uts", NewPID: true},
		Files:      Files{Hosts: "/f/hosts", Hostname: "/f/hostname", ResolvConf: "/f/resolv.conf", Shm: "/f/shm"},
		Security:   &cri.LinuxContainerSecurityContext{},
	}
}

func mustBuild(t *testing.T, h Host, in Input) *Result {
	t.Helper()
	r, err := NewBuilder(h, Defaults{}).Build(in)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func destinations(s *specs.Spec) []string {
	var out []string
	for _, m := range s.Mounts {
		out = append(out, m.Destination)
	}
	return out
}

func mountAt(s *specs.Spec, dst string) *specs.Mount {
	for i := range s.Mounts {
		if s.Mounts[i].Destination == dst {
			return &s.Mounts[i]
		}
	}
	return nil
}

func TestCapabilities(t *testing.T) {
	def := DefaultCapabilities()
	host := testHost().Capabilities
	with := func(extra ...string) []string { return append(slices.Clone(def), extra...) }
	for name, tc := range map[string]struct {
		sc       *cri.LinuxContainerSecurityContext
		want     []string
		ambient  []string
		warnings int
	}{
		"none":             {sc: nil, want: def},
		"add":              {sc: caps([]string{"net_admin"}, nil, nil), want: with("CAP_NET_ADMIN")},
		"add prefixed":     {sc: caps([]string{"CAP_NET_ADMIN"}, nil, nil), want: with("CAP_NET_ADMIN")},
		"add twice":        {sc: caps([]string{"NET_ADMIN", "CAP_NET_ADMIN"}, nil, nil), want: with("CAP_NET_ADMIN")},
		"add not held":     {sc: caps([]string{"SYS_TIME"}, nil, nil), want: def, warnings: 1},
		"add all":          {sc: caps([]string{"ALL"}, nil, nil), want: host},
		"add all but one":  {sc: caps([]string{"all"}, []string{"SYS_ADMIN"}, nil), want: with("CAP_NET_ADMIN")},
		"drop all":         {sc: caps(nil, []string{"ALL"}, nil), want: nil},
		"drop all add one": {sc: caps([]string{"KILL"}, []string{"ALL"}, nil), want: []string{"CAP_KILL"}},
		"ambient":          {sc: caps(nil, []string{"ALL"}, []string{"NET_ADMIN"}), want: []string{"CAP_NET_ADMIN"}, ambient: []string{"CAP_NET_ADMIN"}},
		"ambient not held": {sc: caps(nil, []string{"ALL"}, []string{"SYS_TIME"}), want: nil, warnings: 1},
		"ambient dropped":  {sc: caps(nil, []string{"NET_ADMIN"}, []string{"NET_ADMIN"}), want: def},
		"ambient too":      {sc: caps(nil, nil, []string{"KILL"}), want: def, ambient: []string{"CAP_KILL"}},
		"ambient all":      {sc: caps([]string{"KILL"}, []string{"ALL"}, []string{"ALL"}), want: []string{"CAP_KILL"}, ambient: []string{"CAP_KILL"}},
		"privileged":       {sc: &cri.LinuxContainerSecurityContext{Privileged: true}, want: host},
	} {
		t.Run(name, func(t *testing.T) {
			in := testInput()
			in.Security = tc.sc
			r := mustBuild(t, testHost(), in)
			c := r.Spec.Process.Capabilities
			want := slices.Clone(tc.want)
			slices.Sort(want)
			for set, got := range map[string][]string{"bounding": c.Bounding, "effective": c.Effective, "permitted": c.Permitted} {
				if !slices.Equal(got, want) {
					t.Errorf("%s: got %v, want %v", set, got, want)
				}
			}
			if !slices.Equal(c.Ambient, tc.ambient) || !slices.Equal(c.Inheritable, tc.ambient) {
				t.Errorf("ambient and inheritable: got %v and %v, want both %v", c.Ambient, c.Inheritable, tc.ambient)
			}
			if len(r.Warnings) != tc.warnings {
				t.Errorf("warnings: got %q, want %d", r.Warnings, tc.warnings)
			}
		})
	}
}

func caps(add, drop, ambient []string) *cri.LinuxContainerSecurityContext {
	return &cri.LinuxContainerSecurityContext{Capabilities: &cri.Capability{AddCapabilities: add, DropCapabilities: drop, AddAmbientCapabilities: ambient}}
}

func TestInvalidInput(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Input)
		class  func(error) bool
		says   string
	}{
		"unknown capability":   {func(in *Input) { in.Security = caps([]string{"FLY"}, nil, nil) }, errdefs.IsInvalidArgument, `"FLY"`},
		"no command":           {func(in *Input) { in.Args = nil }, errdefs.IsInvalidArgument, "no command"},
		"NUL in args":          {func(in *Input) { in.Args = []string{"a\x00b"} }, errdefs.IsInvalidArgument, "NUL"},
		"env not UTF-8":        {func(in *Input) { in.Env = []string{"A=\xff"} }, errdefs.IsInvalidArgument, `env "A"`},
		"relative cwd":         {func(in *Input) { in.Cwd = "tmp" }, errdefs.IsInvalidArgument, "working directory"},
		"cwd climbs":           {func(in *Input) { in.Cwd = "/a/../../etc" }, errdefs.IsInvalidArgument, "working directory"},
		"masked path too long": {func(in *Input) { in.Security.MaskedPaths = []string{"/" + strings.Repeat("a", 256)} }, errdefs.IsInvalidArgument, "masked_paths[0]"},
		"masked path":          {func(in *Input) { in.Security.MaskedPaths = []string{"proc"} }, errdefs.IsInvalidArgument, "masked_paths[0]"},
		"AppArmor missing": {func(in *Input) {
			in.Security.Apparmor = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: "p"}
		}, errdefs.IsFailedPrecondition, "AppArmor"},
		"seccomp profile JSON": {func(in *Input) { in.Security.Seccomp = localSeccomp("/p"); in.SeccompProfile = []byte("{") }, errdefs.IsInvalidArgument, `"/p"`},
		"seccomp relative":     {func(in *Input) { in.Security.Seccomp = localSeccomp("p") }, errdefs.IsInvalidArgument, "absolute"},
		"seccomp legacy":       {func(in *Input) { in.Security.SeccompProfilePath = "unknown" }, errdefs.IsInvalidArgument, "seccomp_profile_path"},
		"device path relative": {func(in *Input) { in.Devices = []Device{{LinuxDevice: specs.LinuxDevice{Path: "dev/x"}}} }, errdefs.IsInvalidArgument, "device path"},
	} {
		t.Run(name, func(t *testing.T) {
			in := testInput()
			tc.change(&in)
			_, err := NewBuilder(testHost(), Defaults{}).Build(in)
			if err == nil || !tc.class(err) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error: got %v, want one with %q", err, tc.says)
			}
		})
	}
}

func TestPrivileged(t *testing.T) {
	in := testInput()
	in.Security = &cri.LinuxContainerSecurityContext{Privileged: true, MaskedPaths: []string{"/proc/kcore"}, ReadonlyPaths: []string{"/proc/sys"}}
	s := mustBuild(t, testHost(), in).Spec
	if len(s.Linux.MaskedPaths)+len(s.Linux.ReadonlyPaths) != 0 {
		t.Errorf("masked and read-only paths: got %q and %q, want none", s.Linux.MaskedPaths, s.Linux.ReadonlyPaths)
	}
	if d := s.Linux.Resources.Devices; len(d) != 1 || !d[0].Allow {
		t.Errorf("device rules: got %v, want one that allows all", d)
	}
	if m := mountAt(s, "/sys"); slices.Contains(m.Options, "ro") {
		t.Errorf("mount of sysfs: got %v, want it writable", m)
	}
	if slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace }) {
		t.Errorf("namespaces: got %v, want no cgroup namespace", s.Linux.Namespaces)
	}
}

func TestDefaultsWithoutSecurityContext(t *testing.T) {
	in := testInput()
	in.Security = nil
	s := mustBuild(t, testHost(), in).Spec
	if !slices.Contains(s.Linux.MaskedPaths, "/proc/kcore") || !slices.Contains(s.Linux.ReadonlyPaths, "/proc/sys") {
		t.Errorf("masked and read-only paths: got %q and %q, want the defaults", s.Linux.MaskedPaths, s.Linux.ReadonlyPaths)
	}
	if s.Version != versionBase {
		t.Errorf("version of the spec: got %s, want %s", s.Version, versionBase)
	}
	if d := s.Linux.Resources.Devices; len(d) != 1 || d[0].Allow {
		t.Errorf("device rules: got %v, want one that denies all", d)
	}
}

func TestRlimitsAreLimitedByDaemon(t *testing.T) {
	d := Defaults{Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 4096, Hard: 8192}}, PidsLimit: 7}
	r, err := NewBuilder(testHost(), d).Build(testInput())
	if err != nil {
		t.Fatal(err)
	}
	if l := r.Spec.Process.Rlimits[0]; l.Soft != 1000 || l.Hard != 1000 || len(r.Warnings) != 0 {
		t.Errorf("rlimit: got %+v (warnings %q), want 1000 without a warning", l, r.Warnings)
	}
	if d.Rlimits[0].Hard != 8192 {
		t.Errorf("hard limit of the defaults after Build: got %d, want 8192", d.Rlimits[0].Hard)
	}
	if got := *r.Spec.Linux.Resources.Pids.Limit; got != 7 {
		t.Errorf("pids limit: got %d, want 7", got)
	}
}

func TestFitRlimits(t *testing.T) {
	nofile := func(soft, hard uint64) []specs.POSIXRlimit {
		return []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: soft, Hard: hard}}
	}
	privilegedHost := Host{Capabilities: []string{"CAP_SYS_RESOURCE"}, HardRlimits: map[string]uint64{"RLIMIT_NOFILE": 1000}, MaxOpenFiles: 1 << 20}
	for name, tc := range map[string]struct {
		host       Host
		limits     []specs.POSIXRlimit
		want       []specs.POSIXRlimit
		isAdjusted bool
	}{
		"fits":                         {testHost(), nofile(10, 1000), nofile(10, 1000), false},
		"above the daemon's limit":     {testHost(), nofile(10, 1001), nofile(10, 1000), true},
		"daemon with CAP_SYS_RESOURCE": {privilegedHost, nofile(10, 524288), nofile(10, 524288), false},
		"above fs.nr_open":             {privilegedHost, nofile(math.MaxUint64, math.MaxUint64), nofile(1<<20, 1<<20), true},
		"other type, above fs.nr_open": {privilegedHost, []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Hard: 1 << 30}}, []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Hard: 1 << 30}}, false},
		"host without limits":          {Host{}, nofile(1, 1<<40), nofile(1, 1<<40), false},
	} {
		got, warnings := tc.host.FitRlimits(tc.limits)
		if !slices.Equal(got, tc.want) || (len(warnings) > 0) != tc.isAdjusted {
			t.Errorf("%s: got %+v (warnings %q), want %+v (warnings: %t)", name, got, warnings, tc.want, tc.isAdjusted)
		}
	}
}

func TestConfiguredCapabilities(t *testing.T) {
	r, err := NewBuilder(testHost(), Defaults{Capabilities: []string{"kill", "CAP_CHOWN"}}).Build(testInput())
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Spec.Process.Capabilities.Bounding; !slices.Equal(got, []string{"CAP_CHOWN", "CAP_KILL"}) {
		t.Errorf("bounding capabilities: got %v, want CAP_CHOWN and CAP_KILL", got)
	}
}

func TestAllowAnnotations(t *testing.T) {
	got := AllowAnnotations([]string{"run.oci.*", "org.systemd.*", "", "one", "with.dot."},
		map[string]string{"run.oci.a": "1", "other": "x", "org.systemd.property.ExecStart": "x", "one": "3", "one.more": "x", "with.dot.x": "x"},
		map[string]string{"run.oci.a": "2"})
	if len(got) != 2 || got["run.oci.a"] != "2" || got["one"] != "3" {
		t.Errorf("annotations: got %v, want run.oci.a=2 and one=3", got)
	}
}

func TestEncode(t *testing.T) {
	in := testInput()
	in.Security.Seccomp = &cri.SecurityProfile{}
	b, err := Encode(mustBuild(t, testHost(), in).Spec)
	if err != nil {
		t.Fatal(err)
	}
	var s specs.Spec
	if err := json.Unmarshal(b, &s); err != nil || s.Linux.Seccomp == nil || s.Process.Args[0] != "/bin/sh" {
		t.Errorf("decode the encoded spec: got error %v for %s", err, b)
	}
}

func BenchmarkBuildAndEncode(b *testing.B) {
	builder, in := NewBuilder(testHost(), Defaults{}), testInput()
	in.Security.Seccomp = &cri.SecurityProfile{}
	b.ReportAllocs()
	for b.Loop() {
		r, err := builder.Build(in)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Encode(r.Spec); err != nil {
			b.Fatal(err)
		}
	}
}

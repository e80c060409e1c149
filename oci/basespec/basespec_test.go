package basespec

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestParse(t *testing.T) {
	b, err := Parse([]byte(`{
		"ociVersion": "1.2.0",
		"process": {
			"terminal": true, "user": {"uid": 5, "gid": 5}, "args": ["sh"], "cwd": "/", "noNewPrivileges": true, "env": ["A=1", "B="],
			"capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_CHOWN"]},
			"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}]
		},
		"root": {"path": "rootfs", "readonly": true}, "hostname": "x",
		"mounts": [
			{"destination": "/proc", "type": "proc", "source": "proc"},
			{"destination": "/run/", "type": "tmpfs", "source": "tmpfs"},
			{"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]}
		],
		"hooks": {"poststop": [{"path": "/bin/true"}]},
		"annotations": {"a": "b"},
		"linux": {
			"resources": {"devices": [{"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}], "pids": {"limit": 7}, "unified": {"memory.high": "1"}},
			"devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}],
			"cgroupsPath": "/default", "namespaces": [{"type": "pid"}], "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"],
			"personality": {"domain": "LINUX32"}
		}
	}`))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(b.Env, []string{"A=1", "B="}) || !slices.Equal(b.Capabilities, []string{"CAP_KILL"}) || len(b.Rlimits) != 1 {
		t.Errorf("process: got %+v", b)
	}
	if len(b.Mounts) != 1 || b.Mounts[0].Destination != "/scratch" {
		t.Errorf("mounts: got %+v, want only /scratch", b.Mounts)
	}
	if b.Hooks == nil || b.Annotations["a"] != "b" || len(b.Devices) != 1 || len(b.DeviceRules) != 1 || b.PidsLimit == nil || *b.PidsLimit != 7 ||
		b.Unified["memory.high"] != "1" || b.Personality == nil {
		t.Errorf("got %+v", b)
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		`{`:                       "unexpected EOF",
		`{} {}`:                   "must be one JSON object",
		`{"program": {}}`:         `unknown field "program"`,
		`{"ociVersion": "2.0.0"}`: "ociVersion: must be 1.x",
		`{"linux": {"sysctl": {"net.ipv4.ip_forward": "1"}}}`:                "linux.sysctl: is not supported in a base spec; use pod.default_sysctls",
		`{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}}`:        "linux.seccomp: is not supported in a base spec; use runtimes.NAME.seccomp_profile",
		`{"linux": {"resources": {"memory": {"limit": 1}}}}`:                 "linux.resources.memory: is not supported in a base spec; the request sets it",
		`{"linux": {"resources": {"rdma": {"mlx": {"hcaHandles": 1}}}}}`:     "linux.resources.rdma: is not supported in a base spec",
		`{"process": {"oomScoreAdj": 0}}`:                                    "process.oomScoreAdj: is not supported in a base spec; the request sets it",
		`{"windows": {"layerFolders": ["x"]}}`:                               "windows.layerFolders: is not supported in a base spec",
		`{"process": {"env": ["A"]}}`:                                        "process.env[0]: must be of the form NAME=VALUE",
		`{"process": {"rlimits": [{"type": "NOFILE"}]}}`:                     "process.rlimits[0]: must have a type as in RLIMIT_NOFILE",
		`{"mounts": [{"destination": "a", "type": "tmpfs"}]}`:                "mounts[0].destination: must be an absolute path",
		`{"mounts": [{"destination": "/a", "type": "bind", "source": "b"}]}`: "mounts[0].source: must be an absolute path for a bind mount",
		`{"linux": {"devices": [{"path": "/dev/x", "type": "d"}]}}`:          "linux.devices[0]: must have an absolute path and the type",
		`{"linux": {"resources": {"devices": [{"allow": true}]}}}`:           "linux.resources.devices[0]: must have an access",
		`{"hooks": {"prestart": [{"path": "x"}]}}`:                           "hooks: the path of a hook must be absolute",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

// TestEveryFieldIsTakenIgnoredOrRefused checks that no field of the OCI config is lost in
// silence: each is taken, in the list of ignored fields, or refused.
func TestEveryFieldIsTakenIgnoredOrRefused(t *testing.T) {
	ignored := []string{
		"ociVersion", "root", "hostname", "domainname", "process.terminal", "process.consoleSize", "process.user", "process.args", "process.cwd",
		"process.commandLine", "process.noNewPrivileges", "linux.namespaces", "linux.cgroupsPath", "linux.maskedPaths", "linux.readonlyPaths",
	}
	for _, part := range []struct {
		prefix string
		of     func(*specs.Spec) any
	}{
		{"", func(s *specs.Spec) any { return s }},
		{"process.", func(s *specs.Spec) any { s.Process = &specs.Process{}; return s.Process }},
		{"linux.", func(s *specs.Spec) any { s.Linux = &specs.Linux{}; return s.Linux }},
		{"linux.resources.", func(s *specs.Spec) any {
			s.Linux = &specs.Linux{Resources: &specs.LinuxResources{}}
			return s.Linux.Resources
		}},
	} {
		typ := reflect.TypeOf(part.of(&specs.Spec{})).Elem()
		for i := range typ.NumField() {
			var s specs.Spec
			fill(reflect.ValueOf(part.of(&s)).Elem().Field(i))
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			name = part.prefix + name
			b := take(&s)
			taken := !reflect.DeepEqual(b, &Base{})
			ignore(&s)
			refused := firstSet(reflect.ValueOf(s), "") != ""
			if !taken && !refused && !slices.Contains(ignored, name) {
				t.Errorf("%s: is neither taken nor refused, and not among the ignored fields", name)
			}
		}
	}
}

// fill sets v, and the fields of v, to values that are not zero.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(value)
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString("1.x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uint:
		v.SetUint(1)
	}
}

// TestGeneratedSpec checks that the config that a runtime generates is a valid base spec.
func TestGeneratedSpec(t *testing.T) {
	runc, err := exec.LookPath("runc")
	if err != nil {
		runc = "../../bin/runc"
	}
	dir := t.TempDir()
	cmd := exec.Command(runc, "spec", "--bundle", dir)
	if out, err := cmd.CombinedOutput(); errors.Is(err, fs.ErrNotExist) && testing.Short() {
		t.Skip("needs runc, which make root-test builds")
	} else if err != nil {
		t.Fatalf("runc spec: %v: %s", err, out)
	}
	generated := readFile(t, dir+"/config.json")
	var s specs.Spec
	if err := json.Unmarshal(generated, &s); err != nil {
		t.Fatal(err)
	}
	b, err := Parse(generated)
	if err != nil {
		t.Fatalf("%s: %v", generated, err)
	}
	if !slices.Equal(b.Env, s.Process.Env) || len(b.Mounts) > 0 {
		t.Errorf("got %+v, want the variables of the generated config and no mounts", b)
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

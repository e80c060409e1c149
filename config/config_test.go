package config

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFilesDropInsAndFlagsInOrder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.toml")
	write(t, file, "root = \"/a\"\nlog_level = \"debug\"\n[cni]\nconf_dirs = [\"/x\", \"/y\"]\n[runtimes.special]\npath = \"/bin/s\"\nallowed_annotations = [\"a/*\"]\n")
	write(t, file+".d/20.toml", "root = \"/c\"\n[runtimes.special]\nroot = \"/run/s\"\n")
	write(t, file+".d/10.toml", "root = \"/b\"\n[image]\nprogress_window = \"5s\"\n")
	write(t, file+".d/ignored.txt", "nonsense")
	c, err := Load(Source{File: file, Flags: map[string]string{"log_level": "error", "cni.bin_dirs": "/p,/q", "image.max_layers": "7", "pod.shm_size": "3"}})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Root, want.LogLevel, want.Socket = "/c", "error", "/run/criserver/criserver.sock"
	want.CNI.ConfDirs, want.CNI.BinDirs = []string{"/x", "/y"}, []string{"/p", "/q"}
	want.Image.ProgressWindow, want.Image.MaxLayers, want.Pod.ShmSize = 5*time.Second, 7, 3
	want.Runtimes = map[string]Runtime{"special": {Path: "/bin/s", Type: "oci", Root: "/run/s", AllowedAnnotations: []string{"a/*"}}}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestErrorsNameFileKeyAndRule(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"unknown key":   {"rooot = \"/a\"", "FILE: rooot: unknown key"},
		"unknown table": {"[cnii]\nx = 1", "FILE: cnii.x: unknown key"},
		"wrong type":    {"root = 7", "root"},
		"relative path": {"root = \"a/b\"", "FILE: root: must be an absolute path"},
		"dots":          {"run_dir = \"/a/../b\"", "FILE: run_dir: must be an absolute path"},
		"level":         {"log_level = \"loud\"", "FILE: log_level: must be one of"},
		"layers":        {"[image]\nmax_layers = 900", "FILE: image.max_layers: must be 1 to 500"},
		"handler path":  {"[runtimes.x]\ntype = \"oci\"", "runtimes.x.path: must be an absolute path"},
		"handler type":  {"[runtimes.x]\npath = \"/x\"\ntype = \"vm\"", "FILE: runtimes.x.type: must be one of oci, runsc"},
		"option":        {"[runtimes.runsc]\noptions = [\"network=host\"]", "FILE: runtimes.runsc.options: each must be one option"},
		"handler name":  {"[runtimes.\"a b\"]\npath = \"/x\"", "a handler's name is"},
		"default":       {"default_runtime = \"none\"", "FILE: default_runtime: must be a handler"},
		"stream host":   {"[streaming]\naddress = \"localhost:0\"", "FILE: streaming.address: must be an IP address and a port"},
		"stream open":   {"[streaming]\naddress = \"0.0.0.0:10010\"", "FILE: streaming.address: must be a loopback address"},
		"stream idle":   {"[streaming]\nidle_timeout = \"-1s\"", "FILE: streaming.idle_timeout: must be 0, or at least 1ms"},
		"half a cert":   {"[streaming]\ntls_key = \"/k\"", "streaming.tls_key: goes with"},
		"syntax":        {"root = ", "FILE"},
		"long socket":   {"socket = \"/" + strings.Repeat("s", 120) + "\"", "FILE: socket: must have at most 107 characters"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "c.toml")
			write(t, file, tc.text)
			_, err := Load(Source{File: file})
			want := strings.ReplaceAll(tc.want, "FILE", file)
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "c.toml") && !strings.Contains(err.Error(), "default") {
				t.Errorf("got %v, want it to have %q", err, want)
			}
		})
	}
	if _, err := Load(Source{File: filepath.Join(t.TempDir(), "none.toml")}); err == nil {
		t.Error("a named file that is missing is no error")
	}
	if _, err := Load(Source{File: os.DevNull, Flags: map[string]string{"image.max_layers": "many"}}); err == nil || !strings.Contains(err.Error(), "--image.max-layers") {
		t.Errorf("bad flag: %v", err)
	}
}

func TestPrintReadsBack(t *testing.T) {
	c := Default()
	c.NRI.Socket = "/odd \"name\" \\ \t"
	c.Runtimes = map[string]Runtime{"x": {Path: "/bin/x", Options: []string{"--debug=true"}, AllowedAnnotations: []string{"io.x/*"}}}
	c.fill()
	var out bytes.Buffer
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "c.toml")
	write(t, file, out.String())
	got, err := Load(Source{File: file})
	if err != nil {
		t.Fatalf("%v in\n%s", err, out.String())
	}
	if !reflect.DeepEqual(got, c) {
		t.Errorf("got  %+v\nwant %+v", got, c)
	}
}

func TestEveryKeyIsExplainedAndNoOther(t *testing.T) {
	known := map[string]bool{"runtimes": true}
	for _, k := range Keys() {
		known[k] = true
	}
	for _, f := range runtimeFields(Runtime{}) {
		known["runtimes.NAME."+f.key] = true
	}
	for k := range known {
		if help[k] == "" {
			t.Errorf("%s is not explained", k)
		}
	}
	for k := range help {
		if !known[k] {
			t.Errorf("%s is explained and does not exist", k)
		}
	}
}

func TestReferencePageIsUpToDate(t *testing.T) {
	var want bytes.Buffer
	if err := Reference(&want); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Error("docs/configuration.md differs from the code: run `make docs`")
	}
}

func TestTypesOfRuntimes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.toml")
	write(t, file, "[runtimes.runsc]\noptions = [\"--a=1\"]\n[runtimes.gvisor]\npath = \"/opt/runsc\"\n[runtimes.kin]\npath = \"/opt/kin\"\ntype = \"runsc\"\n"+
		"[runtimes.odd]\npath = \"/opt/runsc\"\ntype = \"oci\"\n[runtimes.crun]\n")
	write(t, file+".d/1.toml", "[runtimes.runsc]\nroot = \"/run/r\"\n")
	write(t, file+".d/2.toml", "[runtimes.runsc]\noptions = [\"--b=2\"]\n")
	c, err := Load(Source{File: file})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"runsc": "runsc", "gvisor": "runsc", "kin": "runsc", "odd": "oci", "crun": "oci"} {
		if got := c.Runtimes[name].Type; got != want {
			t.Errorf("%s is of type %q, want %q", name, got, want)
		}
	}
	if got := c.Runtimes["runsc"]; got.Root != "/run/r" || !reflect.DeepEqual(got.Options, []string{"--b=2"}) {
		t.Errorf("drop-ins made %+v of it", got)
	}
}

func TestExampleOfRuntimesIsValid(t *testing.T) {
	c, err := Load(Source{File: "../docs/examples/runtimes.toml"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"runsc": "runsc", "runsc-hostnet": "runsc", "runc-next": "oci"} {
		if got, ok := c.Runtimes[name]; !ok || got.Type != want {
			t.Errorf("handler %q: %+v, want type %q", name, got, want)
		}
	}
}

// TestEveryKeyRefusesABadValue: a bad value of any key but a switch ends the start
// with an error that names the file and the key.
func TestEveryKeyRefusesABadValue(t *testing.T) {
	const name, path = `"a b"`, `"etc/x"`
	bad := map[string][]string{
		"root": {path, `"/"`}, "run_dir": {path, `"/"`, `"/var/lib/criserver"`}, "socket": {path},
		"socket_group": {name, `"a:b"`, `"4294967296"`}, "log_level": {`"loud"`, `"panic"`}, "log_format": {`"xml"`},
		"cgroup_driver": {`"v2"`}, "cgroup_parent": {`"/"`, `"a"`, `"/a/../b"`, `"/a:b"`, `"a..slice/../b"`, `"--.slice"`, `".slice"`},
		"cni.conf_dirs": {`[]`, `[` + path + `]`}, "cni.bin_dirs": {`[]`, `[""]`}, "cni.default_network": {name, `"../x"`},
		"cni.additional_networks": {`[` + name + `]`}, "cni.conf_template": {path},
		"image.registries_conf": {path}, "image.registries_conf_dir": {path}, "image.policy": {path}, "image.policy_dir": {path},
		"image.registries_d": {path}, "image.auth_file": {path},
		"image.pinned":          {`[""]`, `["pause:3.9"]`, `["registry.k8s.io/pause"]`, `["*/pause"]`, `["a*b*"]`, `["a b/c:1"]`},
		"image.parallel_layers": {`0`, `-1`}, "image.progress_window": {`"-1s"`, `5`}, "image.max_layers": {`0`, `501`},
		"image.max_layer_entries": {`0`}, "image.max_layer_bytes": {`0`, `-1`},
		"pod.allowed_sysctls":    {`["*"]`, `["vm.overcommit_memory"]`, `["kernel.core_pattern"]`, `["net."]`, `["net.*.x"]`, `["net ipv4.*"]`, `[""]`, `["vm.*"]`, `["net/../kernel/*"]`},
		"pod.shm_size":           {`0`},
		"container.capabilities": {`["NET_BND_SERVICE"]`, `["ALL"]`, `[""]`, `["CAP_"]`}, "container.pids_limit": {`-1`, `4194305`},
		"container.default_ulimits":     {`["nofile"]`, `["nofiles=1"]`, `["nofile=2:1"]`, `["nofile=-1"]`, `["nofile=1:2:3"]`, `["=1"]`},
		"container.blockio_config_file": {path}, "container.rdt_config_file": {path}, "container.cdi_spec_dirs": {`[` + path + `]`},
		"container.seccomp_profile": {path}, "container.privileged_seccomp_profile": {path},
		"container.apparmor_profile": {name, `"localhost/p"`, `"unconfined"`},
		"monitor.path":               {path}, "monitor.cgroup": {path, `"/"`},
		"streaming.address": {`"localhost:0"`, `"0.0.0.0:1"`, `"127.0.0.1"`}, "streaming.idle_timeout": {`"-1s"`, `60`},
		"streaming.tls_cert": {path}, "streaming.tls_key": {path},
		"nri.socket": {path}, "nri.plugin_dir": {path}, "nri.plugin_config_dir": {path},
		"nri.registration_timeout": {`"0s"`, `5`}, "nri.request_timeout": {`"0s"`, `2`},
		"nri.reject_seccomp": {`["none"]`}, "nri.required_plugins": {`[` + name + `]`}, "nri.tolerate_missing": {name},
		"default_runtime": {`"none"`},
		"runtimes.x.path": {path}, "runtimes.x.type": {`"vm"`}, "runtimes.x.root": {path}, "runtimes.x.options": {`["debug"]`},
		"runtimes.x.allowed_annotations": {`[""]`, `["a b"]`, `["a*b"]`},
	}
	for key, values := range bad {
		for _, v := range values {
			file := filepath.Join(t.TempDir(), "c.toml")
			text := key + " = " + v + "\n"
			if strings.HasPrefix(key, "runtimes.") && key != "runtimes.x.path" {
				text += "runtimes.x.path = \"/x\"\n"
			}
			write(t, file, text)
			if _, err := Load(Source{File: file}); err == nil || !strings.Contains(err.Error(), file+": "+key) {
				t.Errorf("%s: got %v", text, err)
			}
		}
	}
	c := Default()
	for _, f := range fields(&c) {
		if f.value.Kind() != reflect.Bool && bad[f.key] == nil {
			t.Errorf("no bad value of %s is known", f.key)
		}
	}
	for _, f := range runtimeFields(Runtime{}) {
		if bad["runtimes.x."+f.key] == nil {
			t.Errorf("no bad value of runtimes.x.%s is known", f.key)
		}
	}
}

func TestGoodValues(t *testing.T) {
	for _, text := range []string{
		`cgroup_parent = "/pods/of/node"`, `cgroup_parent = "pods.slice"`, `cgroup_parent = "/a.slice/a-b.slice"`,
		"cgroup_driver = \"cgroupfs\"\ncgroup_parent = \"/pods\"", "cgroup_driver = \"systemd\"\ncgroup_parent = \"pods.slice\"",
		`socket_group = "kube-admins"`, `socket_group = "1000"`,
		`image.pinned = ["registry.k8s.io/pause:3.9", "localhost:5000/a@sha256:aa", "registry.k8s.io/*", "*/pause:*", "*"]`, `image.progress_window = 0`,
		`pod.allowed_sysctls = ["kernel.*", "kernel.sem", "net.ipv4.ip_forward", "net/ipv4/*", "net.ipv4.conf.eth0/1.*", "fs.mqueue.msg_max"]`, `pod.allowed_sysctls = []`,
		`container.capabilities = ["net_admin", "CAP_KILL", "SYS_PTRACE"]`, `container.capabilities = []`, `container.pids_limit = 4194304`,
		`container.default_ulimits = ["nofile=1024:524288", "core=0", "memlock=unlimited", "nproc=5:unlimited"]`, `container.default_ulimits = []`,
		`container.apparmor_profile = ""`, "cgroup_parent = \"/pods\"\nmonitor.cgroup = \"/pods-monitors\"",
		"runtimes.x.path = \"/x\"\nruntimes.x.allowed_annotations = [\"*\", \"io.kubernetes.cri.x/*\", \"a/b\"]",
		"nri.validator = true\nnri.required_plugins = [\"10-a.b\"]\nnri.tolerate_missing = \"example.com/without\"",
	} {
		file := filepath.Join(t.TempDir(), "c.toml")
		write(t, file, text)
		if _, err := Load(Source{File: file}); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestCgroupParentOfADriver: a driver that was chosen, also in place of auto, wants
// its own form.
func TestCgroupParentOfADriver(t *testing.T) {
	for driver, bad := range map[string]string{"cgroupfs": "pods.slice", "systemd": "/pods"} {
		if err := CheckCgroupParent(driver, bad); err == nil {
			t.Errorf("%s has the parent %q", driver, bad)
		}
	}
}

func TestMonitorsAreNotAbovePods(t *testing.T) {
	for _, monitors := range []string{"/a", "/a/b"} {
		file := filepath.Join(t.TempDir(), "c.toml")
		write(t, file, "cgroup_parent = \"/a/b\"\nmonitor.cgroup = \""+monitors+"\"")
		if _, err := Load(Source{File: file}); err == nil || !strings.Contains(err.Error(), "monitor.cgroup: must not contain") {
			t.Errorf("%s: %v", monitors, err)
		}
	}
}

func TestParseUlimit(t *testing.T) {
	for text, want := range map[string]Ulimit{
		"nofile=1024:524288":  {"nofile", 1024, 524288},
		"core=0":              {"core", 0, 0},
		"memlock=1:unlimited": {"memlock", 1, math.MaxUint64},
		"stack=unlimited":     {"stack", math.MaxUint64, math.MaxUint64},
	} {
		if got, err := ParseUlimit(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}

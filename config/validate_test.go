package config

import (
	"math"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestInvalidValues checks that Load returns an error that names the file and the key for
// invalid values of all keys except booleans.
func TestInvalidValues(t *testing.T) {
	const name, path = `"a b"`, `"etc/x"`
	invalid := map[string][]string{
		"root": {path, `"/"`}, "run_dir": {path, `"/"`, `"/var/lib/criserver"`}, "socket": {path}, "admin_socket": {path, `"/run/criserver/criserver.sock"`},
		"socket_group": {name, `"a:b"`, `"4294967296"`}, "log_level": {`"loud"`, `"panic"`}, "log_format": {`"xml"`},
		"cgroup_driver": {`"v2"`}, "cgroup_parent": {`"/"`, `"a"`, `"/a/../b"`, `"/a:b"`, `"a..slice/../b"`, `"--.slice"`, `".slice"`},
		"cni.conf_dirs": {`[]`, `[` + path + `]`}, "cni.bin_dirs": {`[]`, `[""]`}, "cni.ip_preference": {`""`, `"IPv4"`},
		"cni.default_network":     {name, `"../x"`},
		"cni.additional_networks": {`[` + name + `]`}, "cni.conf_template": {path},
		"image.registries_conf": {path}, "image.registries_conf_dir": {path}, "image.policy": {path}, "image.policy_dir": {path},
		"image.registries_d": {path}, "image.auth_file": {path},
		"image.pinned":          {`[""]`, `["pause:3.9"]`, `["registry.k8s.io/pause"]`, `["*/pause"]`, `["a*b*"]`, `["a b/c:1"]`},
		"image.parallel_layers": {`0`, `-1`}, "image.progress_window": {`"-1s"`, `5`}, "image.max_layers": {`0`, `501`},
		"image.max_layer_entries": {`0`}, "image.max_layer_bytes": {`0`, `-1`}, "image.max_archive_bytes": {`0`, `-1`},
		"image.archive_dirs":     {`[` + path + `]`, `[""]`, `["/a", "/a"]`},
		"pod.allowed_sysctls":    {`["*"]`, `["vm.overcommit_memory"]`, `["kernel.core_pattern"]`, `["net."]`, `["net.*.x"]`, `["net ipv4.*"]`, `[""]`, `["vm.*"]`, `["net/../kernel/*"]`},
		"pod.shm_size":           {`0`},
		"pod.netns_dir":          {path, `"/run/criserver/ns"`, `"/run/criserver/ns/x"`},
		"container.capabilities": {`["NET_BND_SERVICE"]`, `["ALL"]`, `[""]`, `["CAP_"]`}, "container.pids_limit": {`-1`, `4194305`},
		"pod.default_sysctls":   {`["net.ipv4.ip_forward"]`, `["net.ipv4.ip_forward="]`, `["vm.swappiness=1"]`, `["net.*=1"]`, `["=1"]`, `["net.a=1\n2"]`, `["net.a=1", "net.a=2"]`},
		"container.default_env": {`["A"]`, `["=x"]`, `["A=1", "A=2"]`, `["A=\u0000"]`}, "container.hooks_dirs": {`[` + path + `]`},
		"container.additional_devices":  {`["dev/null"]`, `["/dev/null:null"]`, `["/dev/null:/dev/x:rx"]`, `["/dev/null:/dev/x:"]`, `["/dev/null:/dev/x:r:w"]`, `["/"]`},
		"container.required_host_paths": {`[` + path + `]`},
		"monitor.log_size_max":          {`-2`, `1`, `1048575`},
		"container.default_ulimits":     {`["nofile"]`, `["nofiles=1"]`, `["nofile=2:1"]`, `["nofile=-1"]`, `["nofile=1:2:3"]`, `["=1"]`},
		"container.blockio_config_file": {path}, "container.rdt_config_file": {path}, "container.cdi_spec_dirs": {`[` + path + `]`},
		"container.timezone":        {`"/etc/localtime"`, `"../x"`, `"Europe/../x"`, `"a b"`, `"a/"`},
		"container.seccomp_profile": {path}, "container.privileged_seccomp_profile": {path},
		"container.apparmor_profile": {name, `"localhost/p"`, `"unconfined"`},
		"checkpoint.criu":            {path, `"/usr/sbin/criu-ns"`},
		"monitor.path":               {path}, "monitor.cgroup": {path, `"/"`},
		"streaming.address": {`"localhost:0"`, `"0.0.0.0:1"`, `"127.0.0.1"`}, "streaming.idle_timeout": {`"-1s"`, `60`},
		"streaming.tls_cert": {path}, "streaming.tls_key": {path}, "streaming.tls_client_ca": {path, `"/ca"`},
		"streaming.tls_min_version": {`"1.2"`, `""`}, "streaming.tls_cipher_suites": {`["TLS_RSA_WITH_RC4_128_SHA"]`, `["AES128"]`, `[""]`},
		"metrics.address":  {`"localhost:9100"`, `"0.0.0.0:9100"`, `"127.0.0.1"`, `"m.sock"`, `"/a/../b"`, `"/run/criserver/criserver.sock"`},
		"metrics.tls_cert": {path}, "metrics.tls_key": {path}, "metrics.tls_client_ca": {path, `"/ca.pem"`},
		"nri.socket": {path}, "nri.plugin_dir": {path}, "nri.plugin_config_dir": {path},
		"nri.registration_timeout": {`"0s"`, `5`}, "nri.request_timeout": {`"0s"`, `2`},
		"nri.reject_seccomp": {`["none"]`}, "nri.required_plugins": {`[` + name + `]`}, "nri.tolerate_missing": {name},
		"tracing.endpoint":             {`"collector"`, `":4317"`, `"http://collector:4317"`, `"collector:0"`, `"unix://relative"`, `"unix:///a/../b"`},
		"tracing.sampling_per_million": {`-1`, `1000001`}, "tracing.tls_ca": {path}, "tracing.tls_cert": {path}, "tracing.tls_key": {path, `"/key"`},
		"default_runtime": {`"none"`},
		"runtimes.x.path": {path}, "runtimes.x.type": {`"vm"`}, "runtimes.x.root": {path}, "runtimes.x.options": {`["debug"]`},
		"runtimes.x.cni_conf_dirs":       {`[` + path + `]`, `[""]`},
		"runtimes.x.allowed_annotations": {`[""]`, `["a b"]`, `["a*b"]`}, "runtimes.x.base_spec": {path}, "runtimes.x.seccomp_profile": {path},
		"runtimes.x.privileged_without_host_devices_all_devices_allowed": {`true`},
	}
	for key, values := range invalid {
		for _, v := range values {
			file := filepath.Join(t.TempDir(), "c.toml")
			text := key + " = " + v + "\n"
			if strings.HasPrefix(key, "runtimes.") && key != "runtimes.x.path" {
				text += "runtimes.x.path = \"/x\"\n"
			}
			write(t, file, text)
			if _, err := Load(Source{File: file}); err == nil || !strings.Contains(err.Error(), file+": "+key) {
				t.Errorf("%s: got %v, want an error that names the file and the key", text, err)
			}
		}
	}
	c := Default()
	for _, f := range fields(&c) {
		if f.value.Kind() != reflect.Bool && invalid[f.key] == nil {
			t.Errorf("the test has no invalid value for %s", f.key)
		}
	}
	for _, f := range runtimeFields(Runtime{}) {
		if f.value.Kind() != reflect.Bool && invalid["runtimes.x."+f.key] == nil {
			t.Errorf("the test has no invalid value for runtimes.x.%s", f.key)
		}
	}
}

func TestValidValues(t *testing.T) {
	for _, text := range []string{
		`cgroup_parent = "/pods/of/node"`, `cgroup_parent = "pods.slice"`, `cgroup_parent = "/a.slice/a-b.slice"`,
		"cgroup_driver = \"cgroupfs\"\ncgroup_parent = \"/pods\"", "cgroup_driver = \"systemd\"\ncgroup_parent = \"pods.slice\"",
		`socket_group = "kube-admins"`, `socket_group = "1000"`,
		`image.pinned = ["registry.k8s.io/pause:3.9", "localhost:5000/a@sha256:aa", "registry.k8s.io/*", "*/pause:*", "*"]`, `image.progress_window = 0`,
		`pod.allowed_sysctls = ["kernel.*", "kernel.sem", "net.ipv4.ip_forward", "net/ipv4/*", "net.ipv4.conf.eth0/1.*", "fs.mqueue.msg_max"]`, `pod.allowed_sysctls = []`,
		`container.capabilities = ["net_admin", "CAP_KILL", "SYS_PTRACE"]`, `container.capabilities = []`, `container.pids_limit = 4194304`,
		`container.default_ulimits = ["nofile=1024:524288", "core=0", "memlock=unlimited", "nproc=5:unlimited"]`, `container.default_ulimits = []`, `image.archive_dirs = ["/a=1", "/a=2"]`,
		`streaming.tls_min_version = "VersionTLS13"`, `streaming.tls_cipher_suites = ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"]`,
		"streaming.tls_cert = \"/c\"\nstreaming.tls_key = \"/k\"\nstreaming.tls_client_ca = \"/ca\"", `pod.netns_dir = ""`, `pod.netns_dir = "/run/criserver/netns"`,
		`container.default_env = ["A=", "B=x=y", "http_proxy=http://proxy:3128"]`, `container.hooks_dirs = []`, `monitor.log_size_max = -1`, `monitor.log_size_max = 1048576`,
		`pod.default_sysctls = ["net.ipv4.ping_group_range=0 2147483647", "kernel.shmmax = 1", "net.ipv4.conf.eth0.forwarding=1"]`,
		`container.additional_devices = ["/dev/fuse", "/dev/null:/dev/zilch", "/dev/net/tun:/dev/net/tun:rw"]`,
		"runtimes.x.path = \"/x\"\nruntimes.x.privileged_without_host_devices = true\nruntimes.x.privileged_without_host_devices_all_devices_allowed = true",
		`container.apparmor_profile = ""`, "cgroup_parent = \"/pods\"\nmonitor.cgroup = \"/pods-monitors\"",
		"runtimes.x.path = \"/x\"\nruntimes.x.allowed_annotations = [\"*\", \"io.kubernetes.cri.x/*\", \"a/b\"]",
		"nri.validator = true\nnri.required_plugins = [\"10-a.b\"]\nnri.tolerate_missing = \"example.com/without\"",
	} {
		file := filepath.Join(t.TempDir(), "c.toml")
		write(t, file, text)
		if _, err := Load(Source{File: file}); err != nil {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

// TestCheckCgroupParent checks that each driver refuses the form of the other driver.
func TestCheckCgroupParent(t *testing.T) {
	for driver, parent := range map[string]string{"cgroupfs": "pods.slice", "systemd": "/pods"} {
		if err := CheckCgroupParent(driver, parent); err == nil {
			t.Errorf("CheckCgroupParent(%q, %q): got no error", driver, parent)
		}
	}
}

// TestMonitorCgroupAbovePods checks that the cgroup of the monitors cannot contain the cgroup parent.
func TestMonitorCgroupAbovePods(t *testing.T) {
	for _, monitors := range []string{"/a", "/a/b"} {
		file := filepath.Join(t.TempDir(), "c.toml")
		write(t, file, "cgroup_parent = \"/a/b\"\nmonitor.cgroup = \""+monitors+"\"")
		if _, err := Load(Source{File: file}); err == nil || !strings.Contains(err.Error(), "monitor.cgroup: must not contain") {
			t.Errorf("monitor.cgroup %s: got %v, want an error", monitors, err)
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
			t.Errorf("ParseUlimit(%q) = %+v, %v, want %+v", text, got, err, want)
		}
	}
}

package config

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
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

func TestLoadMergesFilesAndFlags(t *testing.T) {
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
	want.Root, want.LogLevel = "/c", "error"
	want.Socket, want.AdminSocket = "/run/criserver/criserver.sock", "/run/criserver/admin.sock"
	want.Metrics.Address = "/run/criserver/metrics.sock"
	want.CNI.ConfDirs, want.CNI.BinDirs = []string{"/x", "/y"}, []string{"/p", "/q"}
	want.Image.ProgressWindow, want.Image.MaxLayers, want.Pod.ShmSize = 5*time.Second, 7, 3
	want.Runtimes = map[string]Runtime{"special": {Path: "/bin/s", Type: "oci", Root: "/run/s", AllowedAnnotations: []string{"a/*"}}}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestLoadErrors(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"unknown key":                         {"rooot = \"/a\"", "FILE: rooot: unknown key"},
		"unknown table":                       {"[cnii]\nx = 1", "FILE: cnii.x: unknown key"},
		"wrong type":                          {"root = 7", "root"},
		"relative path":                       {"root = \"a/b\"", "FILE: root: must be an absolute path"},
		"dots":                                {"run_dir = \"/a/../b\"", "FILE: run_dir: must be an absolute path"},
		"level":                               {"log_level = \"loud\"", "FILE: log_level: must be one of"},
		"layers":                              {"[image]\nmax_layers = 900", "FILE: image.max_layers: must be 1 to 500"},
		"handler path":                        {"[runtimes.x]\ntype = \"oci\"", "runtimes.x.path: must be an absolute path"},
		"handler type":                        {"[runtimes.x]\npath = \"/x\"\ntype = \"vm\"", "FILE: runtimes.x.type: must be one of oci, runsc"},
		"option":                              {"[runtimes.runsc]\noptions = [\"network=host\"]", "FILE: runtimes.runsc.options: must be options"},
		"handler name":                        {"[runtimes.\"a b\"]\npath = \"/x\"", "the name of a handler must be"},
		"default":                             {"default_runtime = \"none\"", "FILE: default_runtime: must be a handler"},
		"stream address without IP":           {"[streaming]\naddress = \"localhost:0\"", "FILE: streaming.address: must be an IP address and a port"},
		"stream address without certificate":  {"[streaming]\naddress = \"0.0.0.0:10010\"", "FILE: streaming.address: must be a loopback address"},
		"stream timeout":                      {"[streaming]\nidle_timeout = \"-1s\"", "FILE: streaming.idle_timeout: must be 0, or at least 1ms"},
		"metrics address without certificate": {"[metrics]\naddress = \"0.0.0.0:9100\"", "FILE: metrics.address: must be a loopback address unless metrics.tls_cert"},
		"metrics socket with certificate":     {"[metrics]\naddress = \"/m.sock\"\ntls_cert = \"/c\"\ntls_key = \"/k\"", "FILE: metrics.tls_cert: must not be set"},
		"client CA without certificate":       {"[metrics]\ntls_client_ca = \"/ca\"", "FILE: metrics.tls_client_ca: needs metrics.tls_cert"},
		"key without certificate":             {"[streaming]\ntls_key = \"/k\"", "streaming.tls_key: must be set if and only if"},
		"syntax":                              {"root = ", "FILE"},
		"long socket":                         {"socket = \"/" + strings.Repeat("s", 120) + "\"", "FILE: socket: must have at most 107 characters"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "c.toml")
			write(t, file, tc.text)
			_, err := Load(Source{File: file})
			want := strings.ReplaceAll(tc.want, "FILE", file)
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "c.toml") && !strings.Contains(err.Error(), "default") {
				t.Errorf("got %v, want an error that contains %q", err, want)
			}
		})
	}
	if _, err := Load(Source{File: filepath.Join(t.TempDir(), "none.toml")}); err == nil {
		t.Error("a missing file: got no error")
	}
	if _, err := Load(Source{File: os.DevNull, Flags: map[string]string{"image.max_layers": "many"}}); err == nil || !strings.Contains(err.Error(), "--image.max-layers") {
		t.Errorf("invalid flag: got %v, want an error that names the flag", err)
	}
}

// TestPrint checks that Load reads what Print writes, also if values contain special characters.
func TestPrint(t *testing.T) {
	c := Default()
	c.NRI.Socket = "/odd \"name\" \\ \t"
	c.Runtimes = map[string]Runtime{"x": {Path: "/bin/x", Options: []string{"--debug=true"}, AllowedAnnotations: []string{"io.x/*"}, CNIConfDirs: []string{"/net"}}}
	c.setDependentDefaults()
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

// TestPrintDefault checks that the output of PrintDefault is a configuration file that changes
// nothing, and that it contains every key with its default value.
func TestPrintDefault(t *testing.T) {
	var out bytes.Buffer
	if err := PrintDefault(&out); err != nil {
		t.Fatal(err)
	}
	key := regexp.MustCompile(`(?m)^#([a-z_]+ = )`)
	if got, want := len(key.FindAllString(out.String(), -1)), len(Keys()); got != want {
		t.Errorf("the file contains %d keys, want %d", got, want)
	}
	for _, content := range []string{out.String(), key.ReplaceAllString(out.String(), "$1")} {
		file := filepath.Join(t.TempDir(), "c.toml")
		write(t, file, content)
		got, err := Load(Source{File: file})
		if err != nil {
			t.Fatalf("%v in\n%s", err, content)
		}
		want, err := Load(Source{File: os.DevNull})
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
}

// TestHelp checks that each key has a description, and that no other key has one.
func TestHelp(t *testing.T) {
	keys := map[string]bool{"runtimes": true}
	for _, k := range Keys() {
		keys[k] = true
	}
	for _, f := range runtimeFields(Runtime{}) {
		keys["runtimes.NAME."+f.key] = true
	}
	for k := range keys {
		if help[k] == "" {
			t.Errorf("%s has no description", k)
		}
	}
	for k := range help {
		if !keys[k] {
			t.Errorf("%s has a description and does not exist", k)
		}
	}
}

func TestReference(t *testing.T) {
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

// TestRuntimeTypes also checks that drop-in files change single keys of a handler.
func TestRuntimeTypes(t *testing.T) {
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
			t.Errorf("handler %q: got type %q, want %q", name, got, want)
		}
	}
	if got := c.Runtimes["runsc"]; got.Root != "/run/r" || !reflect.DeepEqual(got.Options, []string{"--b=2"}) {
		t.Errorf("after the drop-in files: got %+v", got)
	}
}

func TestRuntimesExample(t *testing.T) {
	c, err := Load(Source{File: "../docs/examples/runtimes.toml"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"runsc": "runsc", "runsc-hostnet": "runsc", "runc-next": "oci"} {
		if got, ok := c.Runtimes[name]; !ok || got.Type != want {
			t.Errorf("handler %q: got %+v, want type %q", name, got, want)
		}
	}
}

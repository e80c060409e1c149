package config

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// loaded returns the configuration of a file with a text.
func loaded(t *testing.T, text string) Config {
	t.Helper()
	file := t.TempDir() + "/c.toml"
	write(t, file, text)
	c, err := Load(Source{File: file})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestEveryKeyHasAReloadTag(t *testing.T) {
	c := Default()
	for _, f := range append(fields(&c), runtimeFields(Runtime{})...) {
		if f.reload != reloadYes && f.reload != reloadRestart {
			t.Errorf("key %s: reload tag %q, want %q or %q", f.key, f.reload, reloadYes, reloadRestart)
		}
	}
}

func TestReload(t *testing.T) {
	old := loaded(t, "root = \"/a\"\nlog_level = \"info\"\n[runtimes.gone]\npath = \"/bin/gone\"\n[runtimes.kept]\npath = \"/bin/kept\"\n")
	next := loaded(t, "root = \"/b\"\nrun_dir = \"/c\"\nlog_level = \"debug\"\n[image]\nprogress_window = \"5s\"\n[runtimes.kept]\npath = \"/bin/other\"\n[runtimes.new]\npath = \"/bin/new\"\n")
	got, changes, err := old.Reload(next)
	if err != nil {
		t.Fatal(err)
	}
	if got.Root != "/a" || got.RunDir != "/run/criserver" || got.Socket != old.Socket {
		t.Errorf("root %q, run_dir %q, socket %q: want the old values", got.Root, got.RunDir, got.Socket)
	}
	if got.LogLevel != "debug" || got.Image.ProgressWindow != 5*time.Second {
		t.Errorf("log_level %q, progress_window %s: want the new values", got.LogLevel, got.Image.ProgressWindow)
	}
	want := map[string]Runtime{
		"kept": {Path: "/bin/other", Type: "oci", Root: "/run/criserver/runtimes/kept"},
		"new":  {Path: "/bin/new", Type: "oci", Root: "/run/criserver/runtimes/new"},
	}
	if !reflect.DeepEqual(got.Runtimes, want) {
		t.Errorf("runtimes %+v, want %+v", got.Runtimes, want)
	}
	byKey := make(map[string]Change)
	for _, c := range changes {
		byKey[c.Key] = c
	}
	for _, c := range []Change{
		{Key: "root", Old: `"/a"`, New: `"/b"`, Restart: true},
		{Key: "log_level", Old: `"info"`, New: `"debug"`},
		{Key: "image.progress_window", Old: `"1m0s"`, New: `"5s"`},
		{Key: "runtimes.gone.path", Old: `"/bin/gone"`},
		{Key: "runtimes.kept.path", Old: `"/bin/kept"`, New: `"/bin/other"`},
		{Key: "runtimes.new.path", New: `"/bin/new"`},
	} {
		if byKey[c.Key] != c {
			t.Errorf("change of %s: %+v, want %+v", c.Key, byKey[c.Key], c)
		}
	}
	if _, ok := byKey["runtimes.kept.root"]; ok {
		t.Error("runtimes.kept.root differs, although run_dir keeps its value")
	}
}

func TestReloadWithoutChange(t *testing.T) {
	c := loaded(t, "[runtimes.x]\npath = \"/x\"\n")
	got, changes, err := c.Reload(loaded(t, "[runtimes.x]\npath = \"/x\"\n"))
	if err != nil || len(changes) != 0 || !reflect.DeepEqual(got, c) {
		t.Errorf("changes %v, error %v, configuration %+v: want no changes", changes, err, got)
	}
}

func TestReloadOfTLS(t *testing.T) {
	const tls = "[streaming]\ntls_cert = \"/%\"\ntls_key = \"/key\"\n"
	plain, first, second := Default(), loaded(t, strings.ReplaceAll(tls, "%", "1")), loaded(t, strings.ReplaceAll(tls, "%", "2"))
	plain.setDependentDefaults()
	got, changes, err := plain.Reload(first)
	if err != nil || got.Streaming.TLSCert != "" || got.Streaming.TLSKey != "" || len(changes) != 2 || !changes[0].Restart {
		t.Errorf("turn TLS on: %+v, %v, %v; want the old values until a restart", got.Streaming, changes, err)
	}
	got, changes, err = first.Reload(second)
	if err != nil || got.Streaming.TLSCert != "/2" || len(changes) != 1 || changes[0].Restart {
		t.Errorf("other certificate: %+v, %v, %v; want the new value", got.Streaming, changes, err)
	}
}

func TestReloadOfMetrics(t *testing.T) {
	const tls = "tls_cert = \"/c\"\ntls_key = \"/k\"\n"
	socket := "/run/criserver/metrics.sock"
	for name, tc := range map[string]struct {
		old, next string
		address   string // after the reload
		restart   bool
	}{
		"other address":        {"", "[metrics]\naddress = \"10.0.0.1:1\"\n" + tls, "10.0.0.1:1", false},
		"default address":      {"[metrics]\naddress = \"10.0.0.1:1\"\n" + tls, "", socket, false},
		"on":                   {"[metrics]\naddress = \"off\"\n", "[metrics]\naddress = \"10.0.0.1:1\"\n" + tls, "off", true},
		"off":                  {"[metrics]\naddress = \"10.0.0.1:1\"\n" + tls, "[metrics]\naddress = \"off\"\n", "10.0.0.1:1", true},
		"other run_dir":        {"", "run_dir = \"/r\"\n", socket, true},
		"run_dir and address":  {"", "run_dir = \"/r\"\n[metrics]\naddress = \"127.0.0.1:1\"\n", "127.0.0.1:1", false},
		"other certificate":    {"[metrics]\naddress = \"10.0.0.1:1\"\n" + tls, "[metrics]\naddress = \"10.0.0.1:1\"\n" + strings.ReplaceAll(tls, "/c", "/d"), "10.0.0.1:1", false},
		"certificate, run_dir": {"[metrics]\naddress = \"10.0.0.1:1\"\n" + tls, "run_dir = \"/r\"\n", "10.0.0.1:1", true},
	} {
		got, changes, err := loaded(t, tc.old).Reload(loaded(t, tc.next))
		if err != nil || got.Metrics.Address != tc.address {
			t.Errorf("%s: address %q, %v; want %q", name, got.Metrics.Address, err, tc.address)
		}
		n := 0
		for _, c := range changes {
			if strings.HasPrefix(c.Key, "metrics.") {
				n++
				if c.Restart != tc.restart {
					t.Errorf("%s: %s needs a restart: %t, want %t", name, c.Key, c.Restart, tc.restart)
				}
			}
		}
		if n == 0 {
			t.Errorf("%s: no change", name)
		}
	}
}

// TestReloadChecksTheCombination reloads a configuration that is valid, but not with the values
// that need a restart.
func TestReloadChecksTheCombination(t *testing.T) {
	old := loaded(t, "cgroup_driver = \"cgroupfs\"\ncgroup_parent = \"/pods\"\n")
	next := loaded(t, "[streaming]\naddress = \"0.0.0.0:1\"\ntls_cert = \"/c\"\ntls_key = \"/k\"\n")
	if _, changes, err := old.Reload(next); err != nil || len(changes) != 5 {
		t.Errorf("changes %v, error %v; want 5 changes that need a restart", changes, err)
	}
	old.CNI.ConfDirs = nil // a combination that no file can have
	old.Monitor.Cgroup = "relative"
	if _, _, err := old.Reload(next); err == nil || !strings.Contains(err.Error(), "running daemon: monitor.cgroup") {
		t.Errorf("error %v, want one that names the key and its origin", err)
	}
}

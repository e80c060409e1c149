package config

import (
	"path/filepath"
	"testing"
)

// TestDefaults checks that only the keys of the file differ from the defaults, although other
// defaults depend on them.
func TestDefaults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.toml")
	write(t, file, "run_dir = \"/run/x\"\n[runtimes.special]\npath = \"/bin/s\"\n")
	c, err := Load(Source{File: file})
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]string)
	for _, s := range c.Settings() {
		values[s.Key] = s.Value
	}
	if values["socket"] != `"/run/x/criserver.sock"` || values["runtimes.special.root"] != `"/run/x/runtimes/special"` {
		t.Errorf("got settings %v", values)
	}
	var differ []string
	for _, s := range Defaults(c) {
		if values[s.Key] != s.Value {
			differ = append(differ, s.Key)
		}
		delete(values, s.Key)
	}
	if len(differ) != 2 || differ[0] != "run_dir" || differ[1] != "runtimes.special.path" {
		t.Errorf("got the keys %q, want run_dir and runtimes.special.path", differ)
	}
	if len(values) > 0 {
		t.Errorf("keys without a default: %v", values)
	}
}

package handlers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/oci"
)

// TestHandlerSettings checks that the settings of a handler reach the containers, and that the
// error of a base spec names the key, the file and the field.
func TestHandlerSettings(t *testing.T) {
	dir := t.TempDir()
	profile, invalid := filepath.Join(dir, "profile.json"), filepath.Join(dir, "invalid.json")
	good, bad, unknown := filepath.Join(dir, "good.json"), filepath.Join(dir, "bad.json"), filepath.Join(dir, "unknown.json")
	for path, content := range map[string]string{
		profile: `{"defaultAction": "SCMP_ACT_ALLOW"}`, invalid: `{`,
		good: `{"process": {"env": ["A=1"]}}`, bad: `{"linux": {"sysctl": {"net.x": "1"}}}`,
		unknown: `{"process": {"capabilities": {"bounding": ["CAP_X"]}}}`,
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	builder := oci.NewBuilder(oci.Host{}, oci.Defaults{})
	settings := func(r config.Runtime) error {
		cfg := config.Default()
		cfg.Runtimes = map[string]config.Runtime{"x": r}
		got, err := readSettings(cfg, oci.Host{}, builder)
		if err == nil && r.BaseSpec != "" && (got["x"].Base == nil || !got["x"].WritableCgroups || !got["x"].PrivilegedWithoutHostDevices || !got["x"].AllDevicesAllowed || got["x"].Seccomp == nil) {
			t.Errorf("got %+v", got)
		}
		return err
	}
	if err := settings(config.Runtime{
		BaseSpec: good, SeccompProfile: profile, WritableCgroups: true, PrivilegedWithoutHostDevices: true, AllDevicesAllowed: true,
	}); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]string{
		bad: bad + ": linux.sysctl: is not supported in a base spec", unknown: unknown + `: process.capabilities.bounding: "CAP_X" is not a capability`,
		filepath.Join(dir, "none"): "no such file",
	} {
		if err := settings(config.Runtime{BaseSpec: path}); err == nil || !strings.Contains(err.Error(), "runtimes.x.base_spec: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want the key and %q", path, err, want)
		}
	}
	for path, want := range map[string]string{invalid: invalid, filepath.Join(dir, "none"): "no such file"} {
		if err := settings(config.Runtime{SeccompProfile: path}); err == nil || !strings.Contains(err.Error(), "runtimes.x.seccomp_profile: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("seccomp profile %s: got %v, want the key and %q", path, err, want)
		}
	}
}

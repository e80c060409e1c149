package defaults

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/apparmor"
)

func TestContainerDefaults(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.json"), filepath.Join(dir, "bad.json")
	for path, content := range map[string]string{good: `{"defaultAction":"SCMP_ACT_ALLOW"}`, bad: "{"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg := config.Default()
	cfg.Container.PrivilegedSeccompProfile = good
	d, err := containerDefaults(cfg, oci.Host{}, "p")
	if err != nil || d.AppArmorProfile != "p" || d.Seccomp.Privileged == nil || d.Seccomp.Profile != nil {
		t.Errorf("got %+v, %v", d, err)
	}
	// The default limit does not depend on the limits of the daemon's process.
	if want := []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 524288}}; !slices.Equal(d.Rlimits, want) {
		t.Errorf("got rlimits %+v, want %+v", d.Rlimits, want)
	}
	for _, path := range []string{bad, filepath.Join(dir, "none")} {
		cfg.Container.SeccompProfile = path
		if _, err := containerDefaults(cfg, oci.Host{}, ""); err == nil || !strings.Contains(err.Error(), "container.seccomp_profile: "+path) {
			t.Errorf("%s: got %v, want an error that names the key and the file", path, err)
		}
	}
}

// TestDefaultAppArmorProfile checks that the default of the configuration is the profile that
// the daemon can load.
func TestDefaultAppArmorProfile(t *testing.T) {
	if got := config.Default().Container.AppArmorProfile; got != apparmor.DefaultProfile {
		t.Errorf("the default of the configuration is %q, want %q", got, apparmor.DefaultProfile)
	}
	if name, profiles, err := loadAppArmor(t.Context(), apparmor.DefaultProfile, false); name != "" || profiles != nil || err != nil {
		t.Errorf("on a host without AppArmor: got %q, %v, %v", name, profiles, err)
	}
}

package runtime

import (
	"slices"
	"strings"
	"testing"
)

func TestVulnerability(t *testing.T) {
	for line, flawed := range map[string]bool{
		"runc version 1.1.15": true, "runc version 1.2.7": true, "runc version 1.2.8": false, "runc version 1.3.2": true, "runc version 1.3.3": false,
		"runc version 1.4.0-rc.2": true, "runc version 1.4.0-rc.3": false, "runc version 1.4.0": false, "runc version 1.5.2": false, "runc version 1.0.0-rc10": true,
		"runc version 2.0.0": false, "crun version 1.4.3": true, "crun version 1.8.1": false, "crun version 0.21": true, "runsc version x": false,
	} {
		if got := Vulnerability(line) != ""; got != flawed {
			t.Errorf("%s: %v", line, got)
		}
	}
}

func TestVulnerabilityNamesCVE(t *testing.T) {
	for line, want := range map[string]string{
		"runc version 1.1.11": "CVE-2024-21626", "runc version 1.1.12": "CVE-2025-31133", "runc version 1.0.3": "CVE-2024-21626",
		"runc version 1.2.5": "CVE-2025-52881", "crun version 1.4.3": "CVE-2022-27650",
	} {
		if got := Vulnerability(line); !strings.Contains(got, want) {
			t.Errorf("%s: %q", line, got)
		}
	}
}

// TestVulnerabilityOfDistributions checks that a version with the suffix of a distribution, which may contain repairs
// of later releases, is described differently.
func TestVulnerabilityOfDistributions(t *testing.T) {
	for line, want := range map[string]string{
		"runc version 1.1.5+ds1": "1.1.5+ds1", "runc version 1.1.7-0ubuntu1~22.04.2": "1.1.7-0ubuntu1~22.04.2",
		"runc version 1.1.5": "", "runc version 1.4.0-rc.2": "", "runc version 1.3.3+ds1": "",
	} {
		_, got, _ := strings.Cut(Vulnerability(line), "; the distribution may have fixed it in its ")
		if got != want {
			t.Errorf("%s: %q", line, Vulnerability(line))
		}
	}
}

// TestFeaturesOfOldRuntimes checks that the version decides about the features of a crun without the features
// command, and that other runtimes without the command return its error.
func TestFeaturesOfOldRuntimes(t *testing.T) {
	old := fakeRuntime(t, "echo unknown command features >&2; exit 1")
	for line, recursive := range map[string]bool{"crun version 1.8.1": true, "crun version 1.4": true, "crun version 1.3": false, "crun version 2.0": true} {
		f, err := old.DetectFeatures(t.Context(), line)
		if err != nil || slices.Contains(f.MountOptions, "rro") != recursive {
			t.Errorf("%s: %+v, %v", line, f, err)
		}
	}
	for _, line := range []string{"runc version 1.0.3", "runsc version 0.0~20221219.0", "", "other version 3"} {
		if f, err := old.DetectFeatures(t.Context(), line); err == nil || !strings.Contains(err.Error(), "unknown command") {
			t.Errorf("%s: %+v, %v", line, f, err)
		}
	}
	current := fakeRuntime(t, `echo '{"ociVersionMin":"1.0.0","mountOptions":["ro"]}'`)
	if f, err := current.DetectFeatures(t.Context(), "crun version 1.8.1"); err != nil || slices.Contains(f.MountOptions, "rro") {
		t.Errorf("features that the runtime reports: got %+v (error %v), want no rro", f, err)
	}
}

package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// deniedProfile is the name of a profile that TestPods loads.
const deniedProfile = "criserver-test-denied"

// deniedRules allow everything except writes below /forbidden. The rules apply to root, too.
const deniedRules = `profile ` + deniedProfile + ` flags=(attach_disconnected,mediate_deleted) {
  file,
  capability,
  network,
  signal,
  ptrace,
  unix,
  deny /forbidden/** wl,
}
`

// hasAppArmor reports whether the kernel of the host has AppArmor enabled.
func hasAppArmor() bool {
	enabled, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && string(enabled) == "Y\n"
}

// testAppArmor checks on hosts with AppArmor that profiles are enforced. On other hosts the kubelet must refuse pods
// with a profile, and run those without one.
func testAppArmor(t *testing.T) {
	if hasAppArmor() {
		checkProfiles(t)
		return
	}
	s := newSpace(t)
	s.apply(
		sleeper("unconfined", "node1", "", withProfile(`"type": "Unconfined"`, "")),
		sleeper("default", "node1", "", withProfile(`"type": "RuntimeDefault"`, "")),
	)
	s.ready("unconfined")
	eventually(t, 30*time.Second, func() error {
		if status := s.pod("default").Status; status.Phase != corev1.PodFailed || status.Reason != "AppArmor" {
			return fmt.Errorf("pod with a profile on a host without AppArmor: phase %s, reason %q, message %q, want a failed pod", status.Phase, status.Reason, status.Message)
		}
		return nil
	})
	out, err := suite.Nodes[0].Machine.Run(t.Context(), "sh", "-c", "crictl info | jq .config.appArmor")
	if err != nil || out != "false\n" {
		t.Errorf("AppArmor in the status of criserver: %v: %s, want false", err, out)
	}
}

// withProfile returns the field of a container with an AppArmor profile, and further fields of its security context.
func withProfile(profile, fields string) string {
	return fmt.Sprintf(`"securityContext": {"appArmorProfile": {%s}%s}`, profile, withComma(fields))
}

// checkProfiles checks that the kernel enforces the default profile, which denies mounts, and a profile of the node,
// which denies writes to a directory. A container without a profile can do both, with the same capabilities.
func checkProfiles(t *testing.T) {
	loadProfile(t)
	s := newSpace(t)
	const admin = `"capabilities": {"add": ["SYS_ADMIN"]}`
	s.apply(
		sleeper("unconfined", "node1", "", withProfile(`"type": "Unconfined"`, admin)),
		sleeper("default", "node1", "", withProfile(`"type": "RuntimeDefault"`, admin)),
		sleeper("named", "node1", "", withProfile(fmt.Sprintf(`"type": "Localhost", "localhostProfile": %q`, deniedProfile), "")),
		sleeper("absent", "node1", "", withProfile(`"type": "Localhost", "localhostProfile": "criserver-test-absent"`, "")),
	)
	s.ready("unconfined", "default", "named")
	const write, mount = "mkdir -p /forbidden && echo x >/forbidden/file", "mkdir -p /new && mount -t tmpfs new /new"
	// A runtime may have a profile of the mode unconfined, which its containers inherit: "crun (unconfined)".
	for _, test := range []struct{ pod, profile, allowed, denied string }{
		{"unconfined", `^(\w+ \()?unconfined\)?$`, write + " && " + mount, ""},
		{"default", `^criserver-default \(enforce\)$`, write, mount},
		{"named", "^" + deniedProfile + ` \(enforce\)$`, "mkdir /other && echo x >/other/file", write},
	} {
		if got := s.sh(test.pod, "cat /proc/1/attr/current"); !regexp.MustCompile(test.profile).MatchString(got) {
			t.Errorf("profile of %s: %q, want %q", test.pod, got, test.profile)
		}
		s.sh(test.pod, test.allowed)
		if test.denied == "" {
			continue
		}
		if out, err := s.trySh(test.pod, "("+test.denied+") 2>&1 && echo allowed || true"); err != nil || !strings.Contains(strings.ToLower(out), "permission denied") {
			t.Errorf("%q in pod %s: %v: %q, want permission denied", test.denied, test.pod, err, out)
		}
	}
	eventually(t, 30*time.Second, func() error {
		if out := s.kubectl("get", "pod", "absent", "-o", "jsonpath={.status}"); !strings.Contains(out, "criserver-test-absent") {
			return fmt.Errorf("status of a pod with a profile that is not loaded: %s", out)
		}
		return nil
	})
	out, err := suite.Nodes[0].Machine.Run(t.Context(), "sh", "-c", "crictl info | jq .config.appArmor")
	if err != nil || out != "true\n" {
		t.Errorf("AppArmor in the status of criserver: %v: %s, want true", err, out)
	}
}

// loadProfile loads the profile until the end of the test. The host and all nodes share the profiles of the kernel.
func loadProfile(t *testing.T) {
	t.Helper()
	parser := func(option string) error {
		cmd := exec.Command("apparmor_parser", option, "--skip-cache")
		cmd.Stdin = strings.NewReader(deniedRules)
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("apparmor_parser %s: %w: %s", option, err, out)
		}
		return err
	}
	if err := parser("--replace"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := parser("--remove"); err != nil {
			t.Error(err)
		}
	})
}

package kubelet

import (
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// noChmod is a seccomp profile that denies chmod.
const noChmod = `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod", "fchmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"}]}`

// testFields checks fields of a pod: names, groups, DNS, seccomp and others.
func testFields(t *testing.T, n *node) {
	if err := os.MkdirAll(n.kubelet.path("root", "seccomp"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.kubelet.path("root", "seccomp", "no-chmod.json"), []byte(noChmod), 0o644); err != nil {
		t.Fatal(err)
	}
	c := sh("main", "exec sleep 100000")
	c.WorkingDir = "/var/www"
	c.SecurityContext = &corev1.SecurityContext{
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: ptr("no-chmod.json")},
	}
	c.Resources.Limits = amounts("memory", "100Mi")
	c.Env = []corev1.EnvVar{{Name: "LIMIT", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory"}}}}
	c.VolumeMounts = []corev1.VolumeMount{{Name: "info", MountPath: "/info"}}
	// In the image, user 1000 is a member of group 50000.
	member := sh("member", "exec sleep 100000")
	member.Image = "gcr.io/k8s-staging-cri-tools/test-image-predefined-group:latest"
	member.SecurityContext = &corev1.SecurityContext{RunAsUser: ptr(int64(1000))}

	p := newPod("fields", c, member)
	p.Labels["color"] = "blue"
	p.Spec.SecurityContext = &corev1.PodSecurityContext{
		SupplementalGroups: []int64{7000}, SupplementalGroupsPolicy: ptr(corev1.SupplementalGroupsPolicyStrict),
	}
	p.Spec.DNSPolicy = corev1.DNSNone
	p.Spec.DNSConfig = &corev1.PodDNSConfig{
		Nameservers: []string{"192.0.2.53"}, Searches: []string{"a.test", "b.test"}, Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr("3")}},
	}
	p.Spec.HostAliases = []corev1.HostAlias{{IP: "192.0.2.7", Hostnames: []string{"alias", "alias.test"}}}
	p.Spec.Volumes = []corev1.Volume{{Name: "info", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{
		Items: []corev1.DownwardAPIVolumeFile{{Path: "color", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['color']"}}},
	}}}}
	n.runPod(t, p)
	main := container{"fields", "main"}
	for script, want := range map[string]string{
		"cat /etc/resolv.conf":         "search a.test b.test\nnameserver 192.0.2.53\noptions ndots:3",
		"grep alias /etc/hosts":        "192.0.2.7\talias\talias.test",
		"pwd; echo $LIMIT":             "/var/www\n104857600",
		"cat /info/color":              "blue",
		"hostname":                     "fields-" + nodeName,
		"chmod 700 /tmp || echo no":    "nochmod: /tmp: Operation not permitted\n",
		"grep Seccomp: /proc/1/status": "Seccomp:\t2",
	} {
		if got := n.exec(t, main, script); got != want {
			t.Errorf("%s: got %q, want %q", script, got, want)
		}
	}
	if got := n.exec(t, container{"fields", "member"}, "id -G"); got != "1000 7000" {
		t.Errorf("groups with the strict policy: got %q, want none of the image", got)
	}
}

package podspec

import (
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestMetadata(t *testing.T) {
	rules{
		"no metadata":  {func(c *cri.PodSandboxConfig) { c.Metadata = nil }, "metadata must"},
		"no name":      {func(c *cri.PodSandboxConfig) { c.Metadata.Name = "" }, "metadata.name must"},
		"no uid":       {func(c *cri.PodSandboxConfig) { c.Metadata.Uid = "" }, ""},
		"no namespace": {func(c *cri.PodSandboxConfig) { c.Metadata.Namespace = "" }, "metadata.namespace must"},
		"unusual characters": {func(c *cri.PodSandboxConfig) {
			c.Metadata.Name, c.Metadata.Namespace, c.Metadata.Uid = "a b/../c:d\\\"e", "../ä", "/;="
		}, ""},
		"name of 4096 bytes":   {func(c *cri.PodSandboxConfig) { c.Metadata.Name = strings.Repeat("a", 4096) }, ""},
		"name of 4097 bytes":   {func(c *cri.PodSandboxConfig) { c.Metadata.Name = strings.Repeat("a", 4097) }, "metadata.name has"},
		"line break in a name": {func(c *cri.PodSandboxConfig) { c.Metadata.Name = "a\nb" }, "metadata.name"},
		"NUL in a uid":         {func(c *cri.PodSandboxConfig) { c.Metadata.Uid = "a\x00" }, "metadata.uid"},
	}.check(t, testNode())
}

func TestHostname(t *testing.T) {
	rules{
		"qualified":       {func(c *cri.PodSandboxConfig) { c.Hostname = "a.b.example" }, ""},
		"65 bytes":        {func(c *cri.PodSandboxConfig) { c.Hostname = strings.Repeat("a.", 32) + "a" }, "hostname has"},
		"label of 64":     {func(c *cri.PodSandboxConfig) { c.Hostname = strings.Repeat("a", 64) }, ""},
		"blank":           {func(c *cri.PodSandboxConfig) { c.Hostname = "a b" }, "hostname"},
		"comment":         {func(c *cri.PodSandboxConfig) { c.Hostname = "a#b" }, "hostname"},
		"not a DNS name":  {func(c *cri.PodSandboxConfig) { c.Hostname = "-A_b..c-" }, ""},
		"line break":      {func(c *cri.PodSandboxConfig) { c.Hostname = "a\n1.2.3.4 b" }, "hostname"},
		"trailing period": {func(c *cri.PodSandboxConfig) { c.Hostname = "a.sub.ns.svc." }, ""},
	}.check(t, testNode())
}

func TestLogDirectory(t *testing.T) {
	rules{
		"relative":  {func(c *cri.PodSandboxConfig) { c.LogDirectory = "logs" }, "log_directory"},
		"with ..":   {func(c *cri.PodSandboxConfig) { c.LogDirectory = "/var/log/../../etc" }, "log_directory"},
		"NUL":       {func(c *cri.PodSandboxConfig) { c.LogDirectory = "/var/log/\x00" }, "log_directory"},
		"long name": {func(c *cri.PodSandboxConfig) { c.LogDirectory = "/var/" + strings.Repeat("a", 256) }, "log_directory"},
		"long path": {func(c *cri.PodSandboxConfig) { c.LogDirectory = strings.Repeat("/a", 2048) }, "log_directory"},
	}.check(t, testNode())
}

// TestNameStrings checks that different names have different strings. The parts of most of these names would give the
// same string if String only joined the parts.
func TestNameStrings(t *testing.T) {
	seen := make(map[string]Name)
	for _, n := range []Name{
		{"ns", "a", "u", 0}, {"ns/a", "u", "", 0}, {"ns", "a/u", "", 0}, {"ns", "a", "/u", 0}, {"ns", `"a/u"`, "", 0}, {`"ns/a"`, "u", "", 0},
	} {
		if other, ok := seen[n.String()]; ok {
			t.Errorf("%+v and %+v have the same string %s", n, other, n)
		}
		seen[n.String()] = n
	}
	if got := (Name{"kube-system", "dns-0", "1-2", 3}).String(); got != "kube-system/dns-0/1-2/3" {
		t.Errorf("got %s", got)
	}
}

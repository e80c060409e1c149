package network

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// example returns the path of the template in the documentation.
func example(t *testing.T) string {
	t.Helper()
	file, err := filepath.Abs("../../docs/examples/cni.template")
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// subnets returns the subnets and the route destinations of a generated file.
func subnets(t *testing.T, file string) []string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var conf struct {
		Plugins []struct {
			IPAM struct {
				Ranges [][]struct{ Subnet string }
				Routes []struct{ Dst string }
			}
		}
	}
	if err := json.Unmarshal(b, &conf); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	var out []string
	for _, r := range conf.Plugins[0].IPAM.Ranges {
		out = append(out, r[0].Subnet)
	}
	for _, r := range conf.Plugins[0].IPAM.Routes {
		out = append(out, r.Dst)
	}
	return out
}

func TestSetPodCIDR(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made")
	n := New(Config{ConfDirs: []string{dir}, ConfTemplate: example(t)})
	file := filepath.Join(dir, generatedFile)
	set := func(cidrs string, want ...string) {
		t.Helper()
		if err := n.SetPodCIDR(t.Context(), cidrs); err != nil {
			t.Fatal(err)
		}
		if got := subnets(t, file); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", cidrs, got, want)
		}
	}
	set("10.1.0.0/16,fd00::/64", "10.1.0.0/16", "fd00::/64", "0.0.0.0/0", "::/0")
	before, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	set("10.1.0.0/16,fd00::/64", "10.1.0.0/16", "fd00::/64", "0.0.0.0/0", "::/0")
	if after, err := os.Stat(file); err != nil || !os.SameFile(before, after) {
		t.Errorf("the file was written again without a change: %v", err)
	}
	set("10.2.0.0/16", "10.2.0.0/16", "0.0.0.0/0")
	set("", "10.2.0.0/16", "0.0.0.0/0")
	// The default network is the first file, so a later file does not matter.
	if err := os.WriteFile(filepath.Join(dir, "20-b.conflist"), []byte(`{"cniVersion":"1.0.0","name":"b","plugins":[{"type":"x"}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	set("10.3.0.0/16", "10.3.0.0/16", "0.0.0.0/0")
	if err := os.Rename(filepath.Join(dir, "20-b.conflist"), filepath.Join(dir, "05-b.conflist")); err != nil {
		t.Fatal(err)
	}
	set("10.4.0.0/16", "10.3.0.0/16", "0.0.0.0/0")
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("got the files %v, %v", entries, err)
	}
}

func TestSetPodCIDRWithoutTemplate(t *testing.T) {
	dir := t.TempDir()
	n := New(Config{ConfDirs: []string{dir}})
	if err := n.SetPodCIDR(t.Context(), "10.1.0.0/16"); err != nil {
		t.Error(err)
	}
	if err := n.SetPodCIDR(t.Context(), "x"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("invalid list: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("SetPodCIDR created %v", entries)
	}
}

func TestInvalidTemplates(t *testing.T) {
	for name, tc := range map[string]struct{ text, says string }{
		"syntax":         {"{{", "unclosed action"},
		"unknown field":  {"{{.Pods}}", "Pods"},
		"invalid JSON":   {"x {{.PodCIDR}}", "the result is not a valid network"},
		"no name":        {`{"cniVersion":"1.0.0","plugins":[{"type":"x"}]}`, "the result is not a valid network"},
		"invalid name":   {`{"cniVersion":"1.0.0","name":"../x","plugins":[{"type":"x"}]}`, "the result is not a valid network"},
		"endless result": {`{{define "t"}}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx{{template "t" .}}{{end}}{{template "t" .}}`, "bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "template")
			if err := os.WriteFile(file, []byte(tc.text), 0o644); err != nil {
				t.Fatal(err)
			}
			n := New(Config{ConfDirs: []string{filepath.Join(dir, "conf")}, ConfTemplate: file})
			err := n.SetPodCIDR(t.Context(), "10.1.0.0/16")
			if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), file) {
				t.Errorf("got %v", err)
			}
		})
	}
	n := New(Config{ConfDirs: []string{t.TempDir()}, ConfTemplate: "/no/such/template"})
	if err := n.SetPodCIDR(t.Context(), "10.1.0.0/16"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("missing template: %v", err)
	}
}

package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/criserver/criserver/internal/patience"
)

func TestLoad(t *testing.T) {
	const list = `{"cniVersion":"1.0.0","name":%q,"plugins":[{"type":"x"}]}`
	tests := map[string]struct {
		files map[string]string
		named string
		want  string // name of the network
		err   string
	}{
		"first in the order of names":  {map[string]string{"20-b.conflist": fmt.Sprintf(list, "b"), "10-a.conflist": fmt.Sprintf(list, "a")}, "", "a", ""},
		"named":                        {map[string]string{"20-b.conflist": fmt.Sprintf(list, "b"), "10-a.conflist": fmt.Sprintf(list, "a")}, "b", "b", ""},
		"invalid file is ignored":      {map[string]string{"10-a.conflist": "{", "20-b.conflist": fmt.Sprintf(list, "b")}, "", "b", ""},
		"file with one plugin":         {map[string]string{"10-a.conf": `{"cniVersion":"0.3.1","name":"old","type":"x"}`}, "", "old", ""},
		"other files":                  {map[string]string{"a.txt": fmt.Sprintf(list, "a")}, "", "", "no CNI network configuration in "},
		"no network of the name":       {map[string]string{"a.conflist": fmt.Sprintf(list, "a")}, "z", "", `no CNI network named "z"`},
		"error names the invalid file": {map[string]string{"a.conflist": `{"name":"a"}`}, "", "", "a.conflist"},
		"invalid name":                 {map[string]string{"a.conflist": fmt.Sprintf(list, "../a")}, "", "", "a.conflist"},
		"no plugins":                   {map[string]string{"a.conflist": `{"name":"a","plugins":[]}`}, "", "", "no plugins"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, content := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			n := New(Config{ConfDirs: []string{filepath.Join(dir, "missing"), dir}, DefaultNetwork: tt.named})
			d := n.load(n.cfg())
			if tt.err != "" {
				if d.err == nil || !strings.Contains(d.err.Error(), tt.err) {
					t.Errorf("got %v, want %q", d.err, tt.err)
				}
				return
			}
			if d.err != nil || d.list.conf.Name != tt.want {
				t.Errorf("got %+v, %v", d.list, d.err)
			}
		})
	}
}

// TestInline checks that the list contains the plugins from separate files.
func TestInline(t *testing.T) {
	dir := t.TempDir()
	for file, content := range map[string]string{
		"a.conflist":   `{"cniVersion":"1.1.0","name":"a","plugins":[{"type":"x","k":[1]}]}`,
		"a/extra.conf": `{"type":"y","capabilities":{"portMappings":true}}`,
	} {
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, "a"), 0o755), os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	l, err := parse(filepath.Join(dir, "a.conflist"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := parseList(l.raw)
	if err != nil || len(again.conf.Plugins) != 2 || !again.conf.Plugins[1].Network.Capabilities["portMappings"] {
		t.Errorf("%+v, %v", again, err)
	}
	less, err := l.without(func(p *libcni.PluginConfig) bool { return p.Network.Type == "y" })
	if err != nil || len(less.conf.Plugins) != 1 || less.conf.Plugins[0].Network.Type != "x" {
		t.Errorf("%+v, %v", less, err)
	}
}

func TestPlanMasquerade(t *testing.T) {
	const base = `{"type":"bridge","ipMasq":true,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.1.2.3/16"}],[{"subnet":"fd00::/64"}]]}}`
	tests := map[string]struct{ conf, want string }{
		"both families":             {base, "[10.1.0.0/16 fd00::/64]"},
		"nftables":                  {strings.Replace(base, `"ipMasq":true`, `"ipMasq":true,"ipMasqBackend":"nftables"`, 1), "[10.1.0.0/16 fd00::/64]"},
		"one subnet":                {`{"type":"ptp","ipMasq":true,"ipam":{"type":"host-local","subnet":"10.1.0.0/16"}}`, "[10.1.0.0/16]"},
		"iptables backend":          {strings.Replace(base, `"ipMasq":true`, `"ipMasq":true,"ipMasqBackend":"iptables"`, 1), ""},
		"no masquerading":           {strings.Replace(base, `"ipMasq":true,`, "", 1), ""},
		"another plugin":            {strings.Replace(base, "bridge", "macvlan", 1), ""},
		"another IPAM":              {strings.Replace(base, "host-local", "dhcp", 1), ""},
		"invalid subnet":            {strings.Replace(base, "10.1.2.3/16", "10.1.2.3", 1), ""},
		"runtimeConfig in the file": {strings.Replace(base, `"ipMasq":true`, `"ipMasq":true,"runtimeConfig":{"ipRanges":[[{"subnet":"10.9.0.0/16"}]]}`, 1), ""},
		"no subnet":                 {`{"type":"bridge","ipMasq":true,"ipam":{"type":"host-local"}}`, ""},
	}
	for name, tt := range tests {
		p, err := libcni.NetworkPluginConfFromBytes([]byte(tt.conf))
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if m := planMasquerade("n", p); m != nil {
			got = fmt.Sprint(m.Subnets)
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

func TestReadResult(t *testing.T) {
	tests := map[string]struct{ result, ips string }{
		"eth0 before others": {
			`{"cniVersion":"1.0.0","interfaces":[{"name":"br0"},{"name":"net1","sandbox":"/x"},{"name":"eth0","sandbox":"/x"}],
			"ips":[{"address":"10.0.0.1/8","interface":0},{"address":"10.9.0.1/8","interface":1},{"address":"10.0.0.2/8","interface":2},{"address":"fd00::2/64","interface":2}]}`,
			"[10.0.0.2 fd00::2 10.9.0.1]",
		},
		"without interfaces":  {`{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/8"}]}`, "[10.0.0.2]"},
		"version 0.2.0":       {`{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.2/8"},"ip6":{"ip":"fd00::2/64"}}`, "[10.0.0.2 fd00::2]"},
		"none":                {`{"cniVersion":"1.0.0","ips":[]}`, "[]"},
		"host interface only": {`{"cniVersion":"1.0.0","interfaces":[{"name":"br0"}],"ips":[{"address":"10.0.0.1/8","interface":0}]}`, "[]"},
		"loopback":            {`{"cniVersion":"1.0.0","interfaces":[{"name":"lo","sandbox":"/x"}],"ips":[{"address":"127.0.0.1/8","interface":0},{"address":"::1/128","interface":0}]}`, "[]"},
		"duplicate address":   {`{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/8"},{"address":"::ffff:10.0.0.2/104"}]}`, "[10.0.0.2]"},
		"missing interface":   {`{"cniVersion":"1.0.0","interfaces":[],"ips":[{"address":"10.0.0.2/8","interface":3}]}`, "[]"},
	}
	for name, tt := range tests {
		res, err := create.CreateFromBytes([]byte(tt.result))
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if r, err := readResult(res, IfName); err == nil {
			got = fmt.Sprint(r.IPs)
		}
		if got != tt.ips {
			t.Errorf("%s: got %s, want %s", name, got, tt.ips)
		}
	}
}

// script writes an executable shell script and returns its path.
func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "plugin")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRunner(t *testing.T) {
	tests := map[string]struct{ body, out, err string }{
		"output":          {`cat; echo " $X"`, "in y\n", ""},
		"CNI error":       {`echo '{"code":7,"msg":"no such bridge","details":"br9"}'; exit 1`, "", "no such bridge; br9"},
		"stderr":          {`echo oops >&2; exit 3`, "", "exit status 3: oops"},
		"no output":       {`exit 2`, "", "exit status 2 without output"},
		"too much output": {`head -c 2000000 /dev/zero`, "", "more than"},
	}
	for name, tt := range tests {
		out, err := (&runner{}).ExecPlugin(t.Context(), script(t, tt.body), []byte("in"), []string{"X=y", "PATH=" + os.Getenv("PATH")})
		switch {
		case tt.err == "" && (err != nil || string(out) != tt.out):
			t.Errorf("%s: %q, %v", name, out, err)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRunnerKillsChildren checks that the runner kills a child that keeps the pipes of the plugin open.
func TestRunnerKillsChildren(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	path := script(t, "sleep 1000 & sleep 1000")
	go func() { _, err := (&runner{}).ExecPlugin(ctx, path, nil, nil); done <- err }()
	select {
	case err := <-done:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	case <-time.After(patience.For(20 * time.Second)):
		t.Error("ExecPlugin did not return after the end of its context")
	}
}

func TestRuntimeConf(t *testing.T) {
	p := Pod{ID: "id", Name: "n", Namespace: "ns", UID: "u", PortMappings: []PortMapping{{HostPort: 1, ContainerPort: 2, Protocol: "tcp"}}}
	p.Bandwidth, p.CgroupPath = &Bandwidth{IngressRate: 1000, IngressBurst: 2000}, "/pods/a"
	p.DNS = &types.DNS{Nameservers: []string{"10.0.0.10"}, Options: []string{"ndots:5"}}
	p.Annotations = map[string]string{"a": "b"}
	const common = `"cgroupPath":"/pods/a","dns":{"nameservers":["10.0.0.10"],"options":["ndots:5"]},"io.kubernetes.cri.pod-annotations":{"a":"b"}`
	first := `{"bandwidth":{"ingressRate":1000,"ingressBurst":2000},` + common + `,"portMappings":[{"hostPort":1,"containerPort":2,"protocol":"tcp"}]}`
	second := `{` + common + `,"ips":["10.0.0.9/24"],"mac":"02:00:00:00:00:01"}`
	rc := p.forInterface(Default(nil)).runtimeConf()
	if b, err := json.Marshal(rc.CapabilityArgs); err != nil || string(b) != first || rc.IfName != "eth0" {
		t.Errorf("%s, %v", b, err)
	}
	more := p.forInterface(Interface{Name: "net1", MAC: "02:00:00:00:00:01", IPs: []string{"10.0.0.9/24"}}).runtimeConf()
	if b, err := json.Marshal(more.CapabilityArgs); err != nil || string(b) != second || more.IfName != "net1" {
		t.Errorf("%s, %v", b, err)
	}
	if rc.Args[0] != [2]string{"IgnoreUnknown", "1"} || len(rc.Args) != 5 {
		t.Errorf("%v", rc.Args)
	}
	p.Name, p.Namespace, p.UID = "a;IP=10.0.0.1", "../b c", "é/1"
	want := [][2]string{
		{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", ".._b_c"}, {"K8S_POD_NAME", "a_IP_10.0.0.1"}, {"K8S_POD_INFRA_CONTAINER_ID", "id"}, {"K8S_POD_UID", "__1"},
	}
	if got := p.forInterface(Default(nil)).runtimeConf().Args; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

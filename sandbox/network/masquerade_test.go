package network

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestMasqueradeInPlan checks that a plan without some plugins and a plan with host ports keep the
// masquerading, and that a configuration file cannot set it.
func TestMasqueradeInPlan(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "nft", "#!/bin/sh\ncat >/dev/null\n")
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	n := New(Config{CacheDir: t.TempDir()})
	l, err := parseList([]byte(strings.Replace(portsConf, `"ipam":{`, `"ipMasq":true,"ipam":{"subnet":"10.1.0.0/16",`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.enableMasquerade(t.Context(), l, time.Minute); err != nil || l.masquerade == nil {
		t.Fatalf("%+v, %v", l.masquerade, err)
	}
	l.hostPorts = planHostPorts(l.conf)
	for _, pod := range []Pod{{}, {PortMappings: []PortMapping{{HostPort: 1, ContainerPort: 1, Protocol: "tcp"}}}} {
		plan, err := n.podList(l, pod)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseList(plan.planned)
		if err != nil || again.masquerade == nil || fmt.Sprint(*again.masquerade) != "{criserver_masquerade_n [10.1.0.0/16]}" || (again.hostPorts != nil) != (len(pod.PortMappings) > 0) {
			t.Errorf("%s, %v", plan.planned, err)
		}
		raw, err := inline(again.conf)
		if err != nil || strings.Contains(string(raw), "io.criserver") {
			t.Errorf("%s, %v", raw, err)
		}
	}
}

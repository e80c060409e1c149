package testns

import (
	"net"
	"os"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(Run(m)) }

func TestNamespaces(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making namespaces needs root")
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatalf("list the interfaces: %v", err)
	}
	// Modules for tunnels add further interfaces to each namespace.
	for _, i := range interfaces {
		if up := i.Flags&net.FlagUp != 0; up != (i.Name == "lo") {
			t.Errorf("interface %s: got up %t, want only the loopback interface up", i.Name, up)
		}
	}
	if entries, err := os.ReadDir("/run"); err != nil || len(entries) > 0 {
		t.Errorf("files in /run: got %v, error %v, want none", entries, err)
	}
}

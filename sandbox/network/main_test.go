package network

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/criserver/criserver/internal/testns"
	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/sirupsen/logrus"
)

func TestMain(m *testing.M) {
	logrus.SetOutput(io.Discard)
	os.Exit(testns.Run(m))
}

// makeNetNS creates a network namespace and returns its path.
func makeNetNS(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can create network namespaces")
	}
	dir := filepath.Join(t.TempDir(), "ns")
	if err := namespace.Make(namespace.Spec{Dir: dir, Net: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := namespace.UnpinAll(dir); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, namespace.Net)
}

// writeFile writes an executable file.
func writeFile(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}

// runNetwork executes Run until the end of the test.
func runNetwork(t *testing.T, n *Network) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run the network: %v", err)
		}
	})
}

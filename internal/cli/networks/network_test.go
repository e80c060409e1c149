package networks

import (
	"bytes"
	"context"
	"flag"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cli/clitest"
	"github.com/criserver/criserver/internal/cli/command"
	"github.com/criserver/criserver/internal/cli/networks/netview/nettest"
)

// runCommand runs a command of this package, and returns its exit code and its output.
func runCommand(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return clitest.Run(t, Commands, strings.NewReader(""), args...)
}

var update = flag.Bool("update", false, "write the golden files")

// golden compares output with a file below testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; run the test with -update and look at the difference. Got:\n%s", file, got)
	}
}

// networkServer serves responses of InspectNetwork.
type networkServer struct {
	adminv1.UnimplementedNetworkServer
	response *adminv1.InspectNetworkResponse
	pod      string // of the last request
}

func (s *networkServer) InspectNetwork(_ context.Context, req *adminv1.InspectNetworkRequest) (*adminv1.InspectNetworkResponse, error) {
	s.pod = req.GetPod()
	return s.response, nil
}

// serveNetwork serves a response and returns the flags that select the server.
func serveNetwork(t *testing.T, s *networkServer) []string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "admin.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	adminv1.RegisterNetworkServer(g, s)
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Error("the server does not end")
		}
	})
	return []string{"--admin-socket", socket, "--socket", socket}
}

func TestNetworkCommand(t *testing.T) {
	onePod := nettest.Broken()
	onePod.Pods = onePod.Pods[:1]
	dns := nettest.Broken()
	dns.Pods, dns.Problems, dns.HasErrors = dns.Pods[2:3], nil, false
	for _, tt := range []struct {
		golden   string
		response *adminv1.InspectNetworkResponse
		args     []string
		code     int
	}{
		{"network.txt", nettest.Node(3), nil, command.ExitSuccess},
		{"network-broken.txt", nettest.Broken(), nil, command.ExitFailure},
		{"network-pod.txt", dns, []string{"kube-system/coredns"}, command.ExitSuccess},
		{"network-pod-broken.txt", onePod, []string{"9f3a"}, command.ExitFailure},
		{"network.json", nettest.Node(1), []string{"-o", "json"}, command.ExitSuccess},
		{"network.yaml", nettest.Node(1), []string{"-o", "yaml"}, command.ExitSuccess},
		{"network-empty.txt", &adminv1.InspectNetworkResponse{}, nil, command.ExitSuccess},
	} {
		s := &networkServer{response: tt.response}
		args := append(append([]string{"network"}, tt.args...), serveNetwork(t, s)...)
		code, stdout, stderr := runCommand(t, args...)
		if code != tt.code || stderr != "" {
			t.Errorf("%s: got exit code %d, error output %q, want exit code %d", tt.golden, code, stderr, tt.code)
		}
		if len(tt.args) == 1 && s.pod != tt.args[0] {
			t.Errorf("%s: the request is for pod %q, want %q", tt.golden, s.pod, tt.args[0])
		}
		golden(t, tt.golden, []byte(stdout))
	}
}

func TestNetworkDrawings(t *testing.T) {
	flags := serveNetwork(t, &networkServer{response: nettest.Node(2)})
	file := filepath.Join(t.TempDir(), "node.svg")
	for _, tt := range []struct {
		args     []string
		begin    string
		fromFile bool
	}{
		{[]string{"--svg"}, "<svg ", false},
		{[]string{"--dot"}, "graph network {", false},
		{[]string{"--svg", "--file", file}, "<svg ", true},
	} {
		code, stdout, stderr := runCommand(t, append(append([]string{"network"}, tt.args...), flags...)...)
		if tt.fromFile {
			b, err := os.ReadFile(file)
			if err != nil || stdout != "" {
				t.Errorf("%q: got output %q and error %v, want the drawing in the file", tt.args, stdout, err)
			}
			stdout = string(b)
		}
		if code != command.ExitSuccess || stderr != "" || !strings.HasPrefix(stdout, tt.begin) {
			t.Errorf("%q: got exit code %d, error output %q, output %.80q", tt.args, code, stderr, stdout)
		}
	}
	for _, args := range [][]string{{"--file", file}, {"--svg", "--dot"}, {"--svg", "-o", "json"}, {"a", "b"}} {
		if code, _, stderr := runCommand(t, append(append([]string{"network"}, args...), flags...)...); code != command.ExitUsage {
			t.Errorf("%q: got exit code %d, error output %q, want exit code %d", args, code, stderr, command.ExitUsage)
		}
	}
}

package netview

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cli/networks/netview/nettest"
)

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
		t.Errorf("%s differs; run the test with -update and look at the difference", file)
	}
}

var models = map[string]func() *adminv1.InspectNetworkResponse{
	"empty":  func() *adminv1.InspectNetworkResponse { return &adminv1.InspectNetworkResponse{} },
	"one":    func() *adminv1.InspectNetworkResponse { return nettest.Node(1) },
	"three":  func() *adminv1.InspectNetworkResponse { return nettest.Node(3) },
	"thirty": func() *adminv1.InspectNetworkResponse { return nettest.Node(30) },
	"broken": nettest.Broken,
}

func TestSVG(t *testing.T) {
	for name, model := range models {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := SVG(&b, model()); err != nil {
				t.Fatal(err)
			}
			checkXML(t, b.String())
			for _, p := range model().GetPods() {
				if !strings.Contains(b.String(), p.GetId()) {
					t.Errorf("the drawing lacks pod %s", p.GetId())
				}
			}
			golden(t, name+".svg", b.Bytes())
		})
	}
}

func TestDOT(t *testing.T) {
	for name, model := range models {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := DOT(&b, model()); err != nil {
				t.Fatal(err)
			}
			if n, m := strings.Count(b.String(), "{"), strings.Count(b.String(), "}"); n != m {
				t.Errorf("%d opening and %d closing braces", n, m)
			}
			golden(t, name+".dot", b.Bytes())
		})
	}
}

func checkXML(t *testing.T, text string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("the drawing is not well-formed XML: %v", err)
		}
	}
}

// TestUntrustedNames checks that names of pods cannot add elements to the drawings.
func TestUntrustedNames(t *testing.T) {
	r := nettest.Node(1)
	r.Pods[0].Name = `</text><script>"; node [label="x`
	r.Pods[0].Containers = []string{`a"]; evil [label="`, "b\nc"}
	var svg, dot bytes.Buffer
	if err := errors.Join(SVG(&svg, r), DOT(&dot, r)); err != nil {
		t.Fatal(err)
	}
	checkXML(t, svg.String())
	if strings.Contains(svg.String(), "<script") {
		t.Error("the name of the pod is an element of the SVG file")
	}
	if !strings.Contains(dot.String(), `\"]; evil [label=\"`) {
		t.Errorf("the name of the container is not quoted:\n%s", dot.String())
	}
}

func TestHostPorts(t *testing.T) {
	p := &adminv1.NetworkPod{HostPortRules: []*adminv1.HostPortRule{
		{Family: "ipv6", Protocol: "tcp", HostPort: 8080, PodAddress: "fd00::2", PodPort: 80},
		{Family: "ipv4", Protocol: "tcp", HostPort: 8080, PodAddress: "10.0.0.2", PodPort: 80},
		{Family: "ipv6", Protocol: "udp", HostAddress: "::1", HostPort: 53, PodAddress: "fd00::2", PodPort: 53},
	}}
	if got := fmt.Sprint(hostPorts(p)); got != "[{[::1]:53/udp 53} {8080/tcp 80}]" {
		t.Errorf("got %s", got)
	}
}

func TestRate(t *testing.T) {
	for rate, want := range map[uint64]string{0: "0 bit/s", 999: "999 bit/s", 8_000_000: "8 Mbit/s", 1_500_000_000: "1.5 Gbit/s"} {
		if got := Rate(rate); got != want {
			t.Errorf("%d: got %q, want %q", rate, got, want)
		}
	}
}

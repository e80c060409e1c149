package server

import (
	"encoding/json"
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/image"
	"github.com/criserver/criserver/sandbox"
)

// TestRuntimeReady checks that the runtime is not ready before the
// features of all handlers are known, and that the network does not depend on it.
func TestRuntimeReady(t *testing.T) {
	f := &fakeRuntimes{err: errors.New("crun is still being probed"), handlers: []*cri.RuntimeHandler{{Name: "crun"}}}
	s := New(Config{Pods: &fakePods{}, Images: &fakeImages{}, Runtimes: f, Info: testInfo})
	for _, ready := range []bool{false, true} {
		r, err := s.Status(t.Context(), &cri.StatusRequest{})
		if err != nil || len(r.GetRuntimeHandlers()) != 1 {
			t.Fatalf("%v, %v", r, err)
		}
		for _, c := range r.GetStatus().GetConditions() {
			if want := ready || c.GetType() != cri.RuntimeReady; c.GetStatus() != want {
				t.Errorf("condition %v", c)
			}
			if !c.GetStatus() && (c.GetReason() == "" || c.GetMessage() != f.err.Error()) {
				t.Errorf("condition %v", c)
			}
		}
		f.err = nil
	}
}

func TestNetworkReady(t *testing.T) {
	s := New(Config{Pods: &fakePods{network: errors.New("no network in /etc/cni/net.d")}, Images: &fakeImages{}, Runtimes: &fakeRuntimes{}, Info: testInfo})
	r, err := s.Status(t.Context(), &cri.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.GetStatus().GetConditions() {
		if want := c.GetType() == cri.RuntimeReady; c.GetStatus() != want {
			t.Errorf("condition %v", c)
		}
		if c.GetType() == cri.NetworkReady && (c.GetReason() == "" || c.GetMessage() != "no network in /etc/cni/net.d") {
			t.Errorf("condition %v", c)
		}
	}
	if len(r.GetInfo()) != 0 {
		t.Error("status that is not verbose has info")
	}
}

func TestStatusPulls(t *testing.T) {
	pulls := []image.PullProgress{{Image: "r/x:1", Source: "mirror/x:1", Since: time.Unix(1, 0), Bytes: 5, Total: 10, Rate: 2}}
	for name, f := range map[string]*fakeImages{"one": {pulls: pulls}, "none": {}} {
		s := New(Config{Pods: &fakePods{}, Images: f, Runtimes: &fakeRuntimes{}, Info: testInfo})
		for range 2 { // the first call must not change the map of Info
			st, err := s.Status(t.Context(), &cri.StatusRequest{Verbose: true})
			if err != nil || st.GetInfo()["config"] != "{}" {
				t.Fatalf("%v, %v", st, err)
			}
			var got []image.PullProgress
			if err := json.Unmarshal([]byte(st.GetInfo()["pulls"]), &got); err != nil || got == nil || len(got) != len(f.pulls) {
				t.Errorf("%s: pulls %s, %v", name, st.GetInfo()["pulls"], err)
			}
		}
		if st, err := s.Status(t.Context(), &cri.StatusRequest{}); err != nil || len(st.GetInfo()) > 0 {
			t.Errorf("status that is not verbose: %v, %v", st, err)
		}
	}
}

func TestPodStatusAddresses(t *testing.T) {
	p := &sandbox.Pod{
		ID: "x", Ready: true, CreatedAt: time.Unix(0, 42), Config: &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: "n"}},
		IPs:       []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2"), netip.MustParseAddr("10.1.0.2")},
		CNIResult: []byte(`{"cniVersion":"1.1.0"}`), Namespaces: sandbox.Namespaces{Net: "/ns/net"},
	}
	s := New(Config{Pods: &fakePods{pods: []*sandbox.Pod{p}}, Containers: &fakeContainers{}})
	r, err := s.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: "x", Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	n := r.GetStatus().GetNetwork()
	if n.GetIp() != "10.0.0.2" || len(n.GetAdditionalIps()) != 2 || n.GetAdditionalIps()[0].GetIp() != "fd00::2" {
		t.Errorf("network %v", n)
	}
	if r.GetStatus().GetCreatedAt() != 42 || r.GetInfo()["info"] == "" {
		t.Errorf("status %v, info %v", r.GetStatus(), r.GetInfo())
	}
}

func TestStopSignal(t *testing.T) {
	for _, c := range []struct {
		config   cri.Signal
		snapshot unix.Signal
		want     cri.Signal
	}{
		{cri.Signal_SIGNAL_SIGIOT, unix.SIGABRT, cri.Signal_SIGNAL_SIGIOT}, // the name in the config
		{0, unix.SIGTERM, cri.Signal_SIGNAL_SIGTERM},
		{0, unix.SIGQUIT, cri.Signal_SIGNAL_SIGQUIT},
		{0, 34, cri.Signal_SIGNAL_SIGRTMIN},
		{0, 37, cri.Signal_SIGNAL_SIGRTMINPLUS3},
		{0, 49, cri.Signal_SIGNAL_SIGRTMINPLUS15},
		{0, 50, cri.Signal_SIGNAL_SIGRTMAXMINUS14},
		{0, 64, cri.Signal_SIGNAL_SIGRTMAX},
		{0, 0, cri.Signal_SIGNAL_RUNTIME_DEFAULT}, // a container that was never created
	} {
		got := stopSignal(&container.Snapshot{StopSignal: c.snapshot, Config: &cri.ContainerConfig{StopSignal: c.config}})
		if got != c.want {
			t.Errorf("%s, %d: got %s, want %s", c.config, c.snapshot, got, c.want)
		}
	}
	for sig := unix.Signal(rtMin); sig <= rtMax; sig++ {
		if stopSignal(&container.Snapshot{StopSignal: sig, Config: &cri.ContainerConfig{}}) == 0 {
			t.Errorf("signal %d has no name", sig)
		}
	}
}

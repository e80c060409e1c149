package system

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"

	"github.com/criserver/criserver/test/harness"
)

// forward starts port forwarding and returns the local port of the first port.
func (n *node) forward(t *testing.T, transport, podID, port string) (local uint16, stop func() error) {
	t.Helper()
	r, err := n.RuntimeService.PortForward(t.Context(), &cri.PortForwardRequest{PodSandboxId: podID})
	if err != nil {
		t.Fatal(err)
	}
	u := parse(t, r.GetUrl())
	tripper, upgrader, err := spdy.RoundTripperFor(&rest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: tripper}, http.MethodPost, u)
	if transport == "WebSocket" {
		if dialer, err = portforward.NewSPDYOverWebsocketDialer(u, &rest.Config{}); err != nil {
			t.Fatal(err)
		}
	}
	stopping, ready := make(chan struct{}), make(chan struct{})
	f, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{"0:" + port}, stopping, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- f.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	ports, err := f.GetPorts()
	if err != nil {
		t.Fatalf("ports of the port forward: %v", err)
	}
	return ports[0].Local, sync.OnceValue(func() error {
		close(stopping)
		return <-ended
	})
}

func get(t *testing.T, port uint16) (string, error) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: harness.Patience(30 * time.Second)}
	resp, err := c.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func TestPortForward(t *testing.T) {
	n := newNode(t, "forward", 73)
	n.Pull(t, nginx)
	p := n.RunPod(t, podConfig("forward"))
	id := n.CreateContainer(t, p, containerConfig(p, "web", nginx))
	n.StartContainer(t, id)
	host := podConfig("hostnet")
	host.Hostname = ""
	host.Linux.SecurityContext.NamespaceOptions.Network = cri.NamespaceMode_NODE
	h := n.RunPod(t, host)
	for transport := range executors {
		t.Run(transport, func(t *testing.T) {
			port, stop := n.forward(t, transport, p.ID, "80")
			var want string
			for end := time.Now().Add(harness.Patience(30 * time.Second)); want == ""; time.Sleep(50 * time.Millisecond) {
				var err error
				if want, err = get(t, port); err != nil && time.Now().After(end) {
					t.Fatal(err)
				}
				if err != nil { // the client ends because the server does not listen yet
					_ = stop()
					port, stop = n.forward(t, transport, p.ID, "80")
				}
			}
			defer func() {
				if err := stop(); err != nil {
					t.Error(err)
				}
			}()
			var wg sync.WaitGroup
			for range 30 {
				wg.Go(func() {
					if got, err := get(t, port); err != nil || got != want {
						t.Errorf("get a page through the forwarded port: got %d bytes (error %v), want %d", len(got), err, len(want))
					}
				})
			}
			wg.Wait()
		})
	}
	if _, err := n.RuntimeService.StopPodSandbox(t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: h.ID}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.RuntimeService.PortForward(t.Context(), &cri.PortForwardRequest{PodSandboxId: h.ID}); err == nil {
		t.Error("port forward to a stopped pod succeeded, want an error")
	}
}

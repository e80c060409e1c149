package system

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// traceCollector is an OpenTelemetry collector that keeps all spans.
type traceCollector struct {
	collector.UnimplementedTraceServiceServer

	mu    sync.Mutex
	spans []*otlp.Span
}

func (c *traceCollector) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range r.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// trace returns the spans of a trace by name. Of spans with the same name it returns the first.
func (c *traceCollector) trace(id string) map[string]*otlp.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := make(map[string]*otlp.Span)
	for _, s := range c.spans {
		if hex.EncodeToString(s.GetTraceId()) == id && found[s.GetName()] == nil {
			found[s.GetName()] = s
		}
	}
	return found
}

// startCollector serves a collector on a loopback address, which it returns.
func startCollector(t *testing.T) (*traceCollector, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &traceCollector{}
	g := grpc.NewServer()
	collector.RegisterTraceServiceServer(g, c)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return c, l.Addr().String()
}

// inTrace returns the context of a client whose calls belong to a trace.
func inTrace(t *testing.T, trace, span string) context.Context {
	return metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-"+trace+"-"+span+"-01")
}

const (
	podTrace       = "11111111111111111111111111111111"
	containerTrace = "22222222222222222222222222222222"
	clientSpan     = "3333333333333333"
)

// TestTraces checks that the spans of a request continue the trace of the client, down to the CNI plugins and the OCI
// runtime, and that `criserver trace` shows the same steps.
func TestTraces(t *testing.T) {
	c, address := startCollector(t)
	n := newNodeWith(t, "traces", 213, fmt.Sprintf("[tracing]\nendpoint = %q\n", address))
	config := podConfig("traced")
	r, err := n.RuntimeService.RunPodSandbox(inTrace(t, podTrace, clientSpan), &cri.RunPodSandboxRequest{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	p := &pod{ID: r.GetPodSandboxId(), Config: config}
	ctx := inTrace(t, containerTrace, clientSpan)
	created, err := n.RuntimeService.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId: p.ID, Config: containerConfig(p, "app", busybox, "sleep", "1000"), SandboxConfig: config,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.RuntimeService.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: created.GetContainerId()}); err != nil {
		t.Fatal(err)
	}
	n.run(t, p, "untraced", "sleep", "1000") // the client does not ask for a trace

	waitFor(t, "spans", func() bool {
		return c.trace(podTrace)["RunPodSandbox"] != nil && c.trace(containerTrace)["StartContainer"] != nil
	})
	checkSpans(t, c.trace(podTrace), [][2]string{
		{"RunPodSandbox", ""},
		{"pod.run", "RunPodSandbox"},
		{"pod.record", "pod.run"},
		{"pod.files", "pod.run"},
		{"pod.namespaces", "pod.run"},
		{"cni.add", "pod.run"},
		{"cni.plugin", "cni.add"},
	})
	checkSpans(t, c.trace(containerTrace), [][2]string{
		{"CreateContainer", ""},
		{"container.create", "CreateContainer"},
		{"image.resolve", "container.create"},
		{"rootfs.mount", "container.create"},
		{"bundle.write", "container.create"},
		{"spec.build", "bundle.write"},
		{"monitor.start", "container.create"},
		{"runtime.create", "container.create"},
		{"StartContainer", ""},
		{"container.start", "StartContainer"},
		{"runtime.start", "container.start"},
		{"runtime.call", "runtime.start"},
	})
	c.mu.Lock()
	for _, s := range c.spans {
		if id := hex.EncodeToString(s.GetTraceId()); id != podTrace && id != containerTrace {
			t.Errorf("span %s of trace %s was exported, which the client did not ask for", s.GetName(), id)
		}
	}
	c.mu.Unlock()
	n.checkTimeline(t, p, created.GetContainerId())
}

// checkSpans checks the parents of spans. The parent "" is the span of the client.
func checkSpans(t *testing.T, spans map[string]*otlp.Span, want [][2]string) {
	t.Helper()
	for _, pair := range want {
		s, parent := spans[pair[0]], clientSpan
		if pair[1] != "" {
			parent = hex.EncodeToString(spans[pair[1]].GetSpanId())
		}
		if s == nil {
			t.Errorf("no span %s", pair[0])
		} else if got := hex.EncodeToString(s.GetParentSpanId()); got != parent {
			t.Errorf("parent of span %s: got %s, want %s (%s)", pair[0], got, parent, pair[1])
		}
	}
}

// traceCommand runs `criserver trace`.
func (n *node) traceCommand(t *testing.T, args ...string) (string, error) {
	t.Helper()
	args = append([]string{"trace", "--admin-socket", filepath.Join(filepath.Dir(n.Socket()), "admin.sock"), "--socket", n.Socket()}, args...)
	cmd := exec.CommandContext(t.Context(), filepath.Join(suite.bin, "criserver"), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, stderr.String())
	}
	return string(out), err
}

// operation is a step in the output of `criserver trace -o json`.
type operation struct {
	Name, Container string
	DurationMs      float64
	Running         bool
	Steps           []operation
}

// checkTimeline checks the output of `criserver trace` for a pod and its container.
func (n *node) checkTimeline(t *testing.T, p *pod, container string) {
	t.Helper()
	out, err := n.traceCommand(t, "system/traced", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Pod   string
		Steps []operation
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	if got.Pod != p.ID {
		t.Errorf("pod of the timeline: got %q, want %q", got.Pod, p.ID)
	}
	var names []string
	for _, s := range got.Steps {
		names = append(names, strings.TrimSpace(s.Name+" "+s.Container))
		if s.Running || s.DurationMs <= 0 || len(s.Steps) == 0 {
			t.Errorf("operation %s: running %v, %v ms, %d steps; want an operation that has ended", s.Name, s.Running, s.DurationMs, len(s.Steps))
		}
	}
	if got, want := strings.Join(names, ", "), "pod.run, container.create app, container.start app, container.create untraced, container.start untraced"; got != want {
		t.Errorf("operations: got %s, want %s", got, want)
	}
	for what, args := range map[string][]string{
		"runtime.create":      {container[:12]},
		"name: cni.add":       {p.ID, "--output=yaml"},
		"<svg":                {"system/traced/app", "--svg"},
		"cni.plugin plugin=":  {p.ID[:20]},
		"container.start con": {p.ID},
	} {
		if out, err := n.traceCommand(t, args...); err != nil || !strings.Contains(out, what) {
			t.Errorf("criserver trace %v: got error %v and output without %q:\n%s", args, err, what, out)
		}
	}
	if out, err := n.traceCommand(t, "system/none"); err == nil || !strings.Contains(err.Error(), "no timeline") {
		t.Errorf("criserver trace of an unknown pod: got %v and output %q, want an error", err, out)
	}
}

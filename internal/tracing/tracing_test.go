package tracing

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"

	"github.com/criserver/criserver/internal/steps"
)

// fakeCollector is a collector that keeps the spans. While block is not nil, exports wait until block is closed.
type fakeCollector struct {
	collector.UnimplementedTraceServiceServer
	block chan struct{}

	mu    sync.Mutex
	spans map[string]*otlp.Span // by name
	names []string              // of services
}

func (c *fakeCollector) Export(ctx context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	if c.block != nil {
		select {
		case <-c.block:
		case <-ctx.Done():
		}
		return nil, ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range r.GetResourceSpans() {
		for _, a := range rs.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				c.names = append(c.names, a.GetValue().GetStringValue())
			}
		}
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				c.spans[s.GetName()] = s
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// serve serves a collector on a loopback address, which it returns.
func serve(t *testing.T, c *fakeCollector) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.spans = make(map[string]*otlp.Span)
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, c)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return l.Addr().String()
}

// start runs a Tracer, and returns it with a function that ends it and returns the errors of exports.
func start(t *testing.T, cfg Config) (*Tracer, func() []error) {
	t.Helper()
	var mu sync.Mutex
	var failures []error
	cfg.Failed = func(err error) {
		mu.Lock()
		defer mu.Unlock()
		failures = append(failures, err)
	}
	tracer, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tracer.Run(ctx) }()
	for !tracer.running.Load() {
		time.Sleep(time.Millisecond)
	}
	return tracer, func() []error {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		return failures
	}
}

const (
	traceID = "0af7651916cd43dd8448eb211c80319c"
	spanID  = "b7ad6b7169203331"
)

// header returns the headers of a request that belongs to a trace, which the client exports if flags are "01".
func header(flags string) func(string) string {
	return func(key string) string {
		if key == "traceparent" {
			return "00-" + traceID + "-" + spanID + "-" + flags
		}
		return ""
	}
}

func TestSpans(t *testing.T) {
	c := &fakeCollector{}
	tracer, end := start(t, Config{Endpoint: serve(t, c), Version: "1.2.3", FlushTimeout: time.Minute})
	recorder := steps.NewRecorder(nil, tracer)
	ctx, rpc := recorder.Start(tracer.Remote(t.Context(), header("01")), steps.RPC, steps.Method("RunPodSandbox"))
	run, pod := steps.Begin(ctx, steps.PodRun, steps.Object{Pod: "p1", Name: "default/web"})
	_, add := steps.Start(run, steps.CNIAdd, steps.Network("pods"))
	add.End(errors.New("no address"))
	pod.End(nil)
	rpc.End(nil)
	if failures := end(); len(failures) > 0 {
		t.Errorf("errors of exports: %v", failures)
	}
	spans := c.spans
	if len(spans) != 3 {
		t.Fatalf("got %d spans, want 3: %v", len(spans), spans)
	}
	for name, parent := range map[string][]byte{
		"RunPodSandbox": unhex(t, spanID), "pod.run": spans["RunPodSandbox"].GetSpanId(), "cni.add": spans["pod.run"].GetSpanId(),
	} {
		s := spans[name]
		if fmt.Sprintf("%x", s.GetTraceId()) != traceID || !slices.Equal(s.GetParentSpanId(), parent) {
			t.Errorf("%s: got trace %x and parent %x, want %s and %x", name, s.GetTraceId(), s.GetParentSpanId(), traceID, parent)
		}
	}
	if k := spans["RunPodSandbox"].GetKind(); k != otlp.Span_SPAN_KIND_SERVER {
		t.Errorf("kind of the span of a request: got %v, want server", k)
	}
	if s := spans["cni.add"].GetStatus(); s.GetCode() != otlp.Status_STATUS_CODE_ERROR || s.GetMessage() != "no address" {
		t.Errorf("status of a step with an error: got %v", s)
	}
	want := map[string]string{
		"k8s.namespace.name": "default", "k8s.pod.name": "web", "criserver.pod.id": "p1", "criserver.network": "pods", "error.type": "other",
	}
	for _, a := range spans["cni.add"].GetAttributes() {
		if want[a.GetKey()] != a.GetValue().GetStringValue() {
			t.Errorf("attribute %s: got %q, want %q", a.GetKey(), a.GetValue().GetStringValue(), want[a.GetKey()])
		}
		delete(want, a.GetKey())
	}
	if len(want) > 0 {
		t.Errorf("missing attributes: %v", want)
	}
	if !slices.Equal(c.names, []string{"criserver"}) {
		t.Errorf("names of the service: got %q", c.names)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	var b []byte
	if _, err := fmt.Sscanf(s, "%x", &b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSampling(t *testing.T) {
	for name, tc := range map[string]struct {
		perMillion int
		remote     string // flags of the trace of the client; "" for no trace
		want       int
	}{
		"client does not export": {1_000_000, "00", 0},
		"client exports":         {0, "01", 1},
		"no trace of the client": {0, "", 0},
		"all":                    {1_000_000, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			c := &fakeCollector{}
			tracer, end := start(t, Config{Endpoint: serve(t, c), SamplingPerMillion: tc.perMillion, FlushTimeout: time.Minute})
			ctx := t.Context()
			if tc.remote != "" {
				ctx = tracer.Remote(ctx, header(tc.remote))
			}
			_, step := steps.NewRecorder(nil, tracer).Start(ctx, steps.RPC, steps.Method("Status"))
			step.End(nil)
			end()
			if len(c.spans) != tc.want {
				t.Errorf("got %d spans, want %d", len(c.spans), tc.want)
			}
		})
	}
}

// TestDeadCollector checks that steps end while the collector does not answer and the queue is full, and that
// Run ends.
func TestDeadCollector(t *testing.T) {
	silent := &fakeCollector{block: make(chan struct{})}
	silentAddress := serve(t, silent)
	t.Cleanup(func() { close(silent.block) })
	for name, address := range map[string]string{"silent": silentAddress, "refused": "127.0.0.1:1"} {
		t.Run(name, func(t *testing.T) {
			tracer, end := start(t, Config{Endpoint: address, SamplingPerMillion: 1_000_000, FlushTimeout: 100 * time.Millisecond})
			recorder := steps.NewRecorder(nil, tracer)
			for range 3 * queueSize {
				_, step := recorder.Start(t.Context(), steps.RPC, steps.Method("Status"))
				step.End(nil)
			}
			if failures := end(); len(failures) == 0 {
				t.Error("the failure of the export was not reported")
			}
		})
	}
}

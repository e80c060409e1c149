package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// eventStream is the RPC that lasts as long as its client. Its duration has no meaning.
const eventStream = "GetContainerEvents"

// callMetrics are the metrics of one RPC of the CRI.
type callMetrics struct {
	inFlight prometheus.Gauge
	duration prometheus.Observer // nil for eventStream
	ok       prometheus.Counter
}

// newCallMetrics creates the metrics of all RPCs. The gRPC server refuses other RPCs before it calls an interceptor.
func (m *Metrics) newCallMetrics(f factory) {
	m.callCodes = f.counters("rpc_requests_total", "Requests of the CRI that have ended, by gRPC code.", "rpc", "code")
	durations := f.histograms("rpc_duration_seconds", "Duration of requests of the CRI. GetContainerEvents, which lasts as long as its client, has none.", callBuckets, "rpc")
	inFlight := f.gauges("rpc_in_flight", "Requests of the CRI that are in progress.", "rpc")
	m.calls = make(map[string]*callMetrics)
	for _, rpc := range rpcs() {
		c := &callMetrics{inFlight: inFlight.WithLabelValues(rpc), ok: m.callCodes.WithLabelValues(rpc, codes.OK.String())}
		if rpc != eventStream {
			c.duration = durations.WithLabelValues(rpc)
		}
		m.calls[rpc] = c
	}
}

// rpcs returns the names of all RPCs of the CRI.
func rpcs() (names []string) {
	for _, service := range []grpc.ServiceDesc{cri.RuntimeService_ServiceDesc, cri.ImageService_ServiceDesc} {
		for _, method := range service.Methods {
			names = append(names, method.MethodName)
		}
		for _, stream := range service.Streams {
			names = append(names, stream.StreamName)
		}
	}
	return names
}

// CallStarted implements server.CallObserver.
func (m *Metrics) CallStarted(rpc string) {
	if c := m.calls[rpc]; c != nil {
		c.inFlight.Inc()
	}
}

// CallEnded implements server.CallObserver.
func (m *Metrics) CallEnded(rpc string, code codes.Code, d time.Duration) {
	c := m.calls[rpc]
	if c == nil {
		return
	}
	c.inFlight.Dec()
	if c.duration != nil {
		c.duration.Observe(d.Seconds())
	}
	if code == codes.OK {
		c.ok.Inc()
		return
	}
	m.callCodes.WithLabelValues(rpc, code.String()).Inc()
}

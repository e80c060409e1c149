// Package tracing exports steps as spans of OpenTelemetry, with OTLP over gRPC. It is the only package that imports
// OpenTelemetry. A span never waits for the collector: spans wait in a queue of limited size, a goroutine sends them,
// and spans that do not fit into the queue are dropped.
package tracing

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/credentials"
)

// Config configures a Tracer.
type Config struct {
	// Endpoint is the address of the collector: host:port, or unix:///path.
	Endpoint string
	// SamplingPerMillion is how many of a million traces that begin in the daemon are exported. A trace that
	// begins in the client is exported if the client exports the trace.
	SamplingPerMillion int
	// TLS configures the connection. nil means a connection without TLS.
	TLS *tls.Config
	// Version is the version of the daemon.
	Version string
	// Failed is called with the errors of exports, by the goroutine that exports.
	Failed func(error)
	// FlushTimeout limits the export of the last spans when Run ends.
	FlushTimeout time.Duration
}

// The bounds of the queue. A pod start makes about 60 spans of 1 kB.
const (
	queueSize     = 4096 // spans
	batchSize     = 512  // spans
	batchInterval = 2 * time.Second
	exportTimeout = 10 * time.Second
	maxValue      = 2 << 10 // bytes of the value of an attribute, for example of an error message
)

// scope is the name under which the spans are exported.
const scope = "github.com/criserver/criserver"

// Tracer makes spans of steps. It implements steps.StartObserver.
type Tracer struct {
	cfg      Config
	provider *sdk.TracerProvider
	exporter *otlptrace.Exporter
	tracer   trace.Tracer
	remote   propagation.TraceContext
	running  atomic.Bool // Run makes spans
}

// New returns a Tracer. It neither connects to the collector nor makes spans before Run is called.
func New(cfg Config) (*Tracer, error) {
	options := []otlptracegrpc.Option{otlptracegrpc.WithEndpoint(cfg.Endpoint), otlptracegrpc.WithTimeout(exportTimeout)}
	if cfg.TLS == nil {
		options = append(options, otlptracegrpc.WithInsecure())
	} else {
		options = append(options, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(cfg.TLS)))
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	limits := sdk.NewSpanLimits()
	limits.AttributeValueLengthLimit = maxValue
	t := &Tracer{cfg: cfg, exporter: otlptracegrpc.NewUnstarted(options...)}
	t.provider = sdk.NewTracerProvider(
		sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(float64(cfg.SamplingPerMillion)/1e6))),
		sdk.WithRawSpanLimits(limits),
		sdk.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "criserver"), attribute.String("service.version", cfg.Version),
			attribute.String("host.name", host), attribute.Int("process.pid", os.Getpid()),
		)),
	)
	t.tracer = t.provider.Tracer(scope, trace.WithInstrumentationVersion(cfg.Version))
	return t, nil
}

// Run exports spans until ctx ends, and then the spans that wait, for FlushTimeout at most. A collector that does not
// answer is no error, so Run returns an error only if the exporter cannot start.
func (t *Tracer) Run(ctx context.Context) error {
	// OpenTelemetry reports the errors of exports only to a handler of the process.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(t.cfg.Failed))
	if err := t.exporter.Start(ctx); err != nil {
		return fmt.Errorf("start export of traces: %w", err)
	}
	t.provider.RegisterSpanProcessor(sdk.NewBatchSpanProcessor(t.exporter, sdk.WithMaxQueueSize(queueSize),
		sdk.WithMaxExportBatchSize(batchSize), sdk.WithBatchTimeout(batchInterval), sdk.WithExportTimeout(exportTimeout)))
	t.running.Store(true)
	<-ctx.Done()
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.cfg.FlushTimeout)
	defer cancel()
	if err := t.provider.Shutdown(flush); err != nil {
		t.cfg.Failed(fmt.Errorf("export the last spans: %w", err))
		_ = t.exporter.Shutdown(flush) // ends the running export, because flush has ended
	}
	return nil
}

// Remote returns a context that continues the trace of a client, if header returns a valid "traceparent" as the
// recommendation "Trace Context" of the W3C specifies.
func (t *Tracer) Remote(ctx context.Context, header func(key string) string) context.Context {
	return t.remote.Extract(ctx, headers(header))
}

// headers implements propagation.TextMapCarrier for the headers of a request.
type headers func(key string) string

func (h headers) Get(key string) string { return h(strings.ToLower(key)) }
func (headers) Set(string, string)      {}
func (headers) Keys() []string          { return nil }

package tracing

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/criserver/criserver/internal/steps"
)

// maxAttributes is the usual number of attributes of a span.
const maxAttributes = 8

// StepStarted begins the span of a step.
func (t *Tracer) StepStarted(ctx context.Context, info *steps.Info) context.Context {
	name, kind := info.Name.String(), trace.SpanKindInternal
	if info.Name == steps.RPC {
		kind = trace.SpanKindServer
		for _, a := range info.Attrs() {
			name = a.Value // the method
		}
	}
	ctx, _ = t.tracer.Start(ctx, name, trace.WithTimestamp(info.Start), trace.WithSpanKind(kind))
	return ctx
}

// StepEnded ends the span of a step.
func (t *Tracer) StepEnded(ctx context.Context, info *steps.Info) {
	span := trace.SpanFromContext(ctx)
	if span.IsRecording() {
		span.SetAttributes(attributes(info)...)
		if info.Err != nil {
			span.RecordError(info.Err)
			span.SetStatus(codes.Error, info.Err.Error())
		}
	}
	span.End(trace.WithTimestamp(info.Start.Add(info.Duration)))
}

// attributes returns the attributes of a span. Where the semantic conventions of OpenTelemetry have a name for an
// attribute, the attribute has that name.
func attributes(info *steps.Info) []attribute.KeyValue {
	list := make([]attribute.KeyValue, 0, maxAttributes)
	if o := info.Object; o.Container != "" {
		list = append(list, attribute.String("container.id", o.Container), attribute.String("k8s.container.name", o.Name))
	} else if namespace, name, ok := strings.Cut(o.Name, "/"); ok {
		list = append(list, attribute.String("k8s.namespace.name", namespace), attribute.String("k8s.pod.name", name))
	}
	if info.Object.Pod != "" {
		list = append(list, attribute.String("criserver.pod.id", info.Object.Pod))
	}
	for _, a := range info.Attrs() {
		if info.Name == steps.RPC && a.Key == "method" {
			list = append(list, attribute.String("rpc.system.name", "grpc"), attribute.String("rpc.method", a.Value))
			continue
		}
		list = append(list, attribute.String("criserver."+a.Key, a.Value))
	}
	if info.Class != "" {
		list = append(list, attribute.String("error.type", string(info.Class)))
	}
	return list
}

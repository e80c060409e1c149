// Package steps measures the steps of operations on pods, containers and images: how long each step takes, which step
// contains it, and with which error it ends. Code that performs a step needs one line:
//
//	ctx, step := steps.Start(ctx, steps.CNIAdd, steps.Network(name))
//	…
//	step.End(err)
//
// A [Recorder] in the context passes the steps to observers (metrics, traces) and to the timelines of pods and
// containers, which [Timelines] keeps for inspection. Without a recorder in the context, a step costs one
// lookup in the context and allocates nothing. The package must know nothing of pods and containers but their
// ids and names.
package steps

import (
	"context"
	"time"
)

// maxAttrs bounds the attributes of a step. Further attributes are ignored.
const maxAttrs = 3

// Attr is an attribute of a step.
type Attr struct{ Key, Value string }

// Plugin returns the attribute with the name of a CNI plugin.
func Plugin(name string) Attr { return Attr{"plugin", name} }

// Command returns the attribute with the command of a plugin or of the OCI runtime.
func Command(name string) Attr { return Attr{"command", name} }

// BuiltIn returns the attribute of work of a plugin that the daemon does itself.
func BuiltIn() Attr { return Attr{"built-in", "true"} }

// Network returns the attribute with the name of a network.
func Network(name string) Attr { return Attr{"network", name} }

// Interface returns the attribute with the name of a network interface in the pod.
func Interface(name string) Attr { return Attr{"interface", name} }

// Image returns the attribute with the reference of an image.
func Image(ref string) Attr { return Attr{"image", ref} }

// Source returns the attribute with the place from which an image is pulled.
func Source(name string) Attr { return Attr{"source", name} }

// Layer returns the attribute with the digest of a layer.
func Layer(digest string) Attr { return Attr{"layer", digest} }

// Lock returns the attribute with the key of a lock.
func Lock(key string) Attr { return Attr{"lock", key} }

// Event returns the attribute with the name of an event that plugins receive.
func Event(name string) Attr { return Attr{"event", name} }

// Signal returns the attribute with the name of a signal.
func Signal(name string) Attr { return Attr{"signal", name} }

// Method returns the attribute with the name of a method of a gRPC service.
func Method(name string) Attr { return Attr{"method", name} }

// Object identifies what an operation changes. An object without ids belongs to no timeline unless it has the
// name of a pod that has one.
type Object struct {
	Pod, Container string // ids; Container is "" for an operation on the pod itself
	// Name is the name of the object: "namespace/name" for a pod, the name in the pod for a container.
	Name string
}

// ID returns the id of the container, or of the pod if the object is no container.
func (o Object) ID() string {
	if o.Container != "" {
		return o.Container
	}
	return o.Pod
}

// Info describes a step for observers.
type Info struct {
	Name   Name
	Object Object // of the operation that the step belongs to
	Start  time.Time
	// Duration, Err and Class are set when the step has ended.
	Duration time.Duration
	Err      error
	Class    Class

	attrs [maxAttrs]Attr
	n     int
}

// Attrs returns the attributes of the step. The caller must not change the slice or keep it.
func (i *Info) Attrs() []Attr { return i.attrs[:i.n] }

// Observer is notified of each step that ends. StepEnded is called on the path of the operation, by many
// goroutines, so it must be fast and must not wait. It must not keep info. The context is the one that Start
// returned.
type Observer interface {
	StepEnded(ctx context.Context, info *Info)
}

// StartObserver is an Observer that is also notified of each step that begins. The steps below the step get the
// returned context.
type StartObserver interface {
	Observer
	StepStarted(ctx context.Context, info *Info) context.Context
}

// Recorder passes steps to timelines and observers. A nil Recorder records nothing.
type Recorder struct {
	timelines *Timelines
	observers []Observer
	starters  []StartObserver
	root      Step // the parent of the steps that Recorder.Start begins
}

// NewRecorder returns a Recorder. timelines can be nil.
func NewRecorder(timelines *Timelines, observers ...Observer) *Recorder {
	r := &Recorder{timelines: timelines, observers: observers}
	r.root = Step{recorder: r, index: noRecord}
	for _, o := range observers {
		if s, ok := o.(StartObserver); ok {
			r.starters = append(r.starters, s)
		}
	}
	return r
}

// Context returns a context whose steps r records.
func (r *Recorder) Context(ctx context.Context) context.Context {
	if r == nil {
		return ctx
	}
	return &Step{Context: ctx, recorder: r, index: noRecord}
}

// Start begins a step that no other step contains.
func (r *Recorder) Start(ctx context.Context, name Name, attrs ...Attr) (context.Context, *Step) {
	if r == nil {
		return ctx, nil
	}
	return r.root.start(ctx, name, nil, Object{}, attrs)
}

// Step is a step that has begun. Its methods do nothing if the step is nil, which means that nobody records the step.
type Step struct {
	context.Context //nolint:containedctx // a step is the context of the steps below it, so that one allocation suffices

	recorder *Recorder
	timeline *timeline // nil if the step belongs to no timeline
	index    int32     // of the record in the timeline, or noRecord
	info     Info
}

// contextKey is the key of the current step in a context.
type contextKey struct{}

// Value implements context.Context.
func (s *Step) Value(key any) any {
	if _, ok := key.(contextKey); ok {
		return s
	}
	return s.Context.Value(key)
}

// Start begins a step of the operation that ctx belongs to. The steps that begin with the returned context are
// below the step. The caller must call End once, from any goroutine.
func Start(ctx context.Context, name Name, attrs ...Attr) (context.Context, *Step) {
	parent, _ := ctx.Value(contextKey{}).(*Step)
	if parent == nil {
		return ctx, nil
	}
	return parent.start(ctx, name, parent.timeline, parent.info.Object, attrs)
}

// Begin is Start for the first step of an operation on object. The step and the steps below it belong to the
// timeline of the object.
func Begin(ctx context.Context, name Name, object Object, attrs ...Attr) (context.Context, *Step) {
	parent, _ := ctx.Value(contextKey{}).(*Step)
	if parent == nil {
		return ctx, nil
	}
	return parent.start(ctx, name, parent.recorder.timelines.open(object), object, attrs)
}

// start begins a step below s.
func (s *Step) start(ctx context.Context, name Name, line *timeline, object Object, attrs []Attr) (context.Context, *Step) {
	c := &Step{Context: ctx, recorder: s.recorder, timeline: line, index: noRecord}
	c.info.Name, c.info.Object, c.info.Start = name, object, time.Now()
	c.info.n = copy(c.info.attrs[:], attrs)
	if line != nil {
		parent := noRecord
		if line == s.timeline {
			parent = s.index
		}
		c.index = line.begin(&c.info, parent)
	}
	for _, o := range s.recorder.starters {
		c.Context = o.StepStarted(c.Context, &c.info)
	}
	return c, c
}

// Add adds an attribute that is known only after the step has begun. The caller must not call Add concurrently
// with End.
func (s *Step) Add(a Attr) {
	if s != nil && s.info.n < maxAttrs {
		s.info.attrs[s.info.n] = a
		s.info.n++
	}
}

// End ends the step. err is the error with which the step failed, or nil.
func (s *Step) End(err error) {
	if s == nil {
		return
	}
	s.info.Duration, s.info.Err, s.info.Class = time.Since(s.info.Start), err, ClassOf(err)
	if s.timeline != nil {
		s.timeline.end(s.index, &s.info)
	}
	for _, o := range s.recorder.observers {
		o.StepEnded(s, &s.info)
	}
}

// EndWith is End for a deferred call: it ends the step with the error that the caller returns.
func (s *Step) EndWith(err *error) { s.End(*err) }

// Forget marks the timeline of a pod or container that was removed. [Timelines] keeps the timelines of the last
// objects that were removed.
func Forget(ctx context.Context, id string) {
	if s, _ := ctx.Value(contextKey{}).(*Step); s != nil {
		s.recorder.timelines.remove(id)
	}
}

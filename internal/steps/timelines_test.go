package steps

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// tree returns the steps of a timeline, indented by their depth.
func tree(l Timeline) string {
	var b strings.Builder
	depth := make([]int, len(l.Steps))
	for i, s := range l.Steps {
		if s.Parent >= 0 {
			depth[i] = depth[s.Parent] + 1
		}
		fmt.Fprintf(&b, "%s%s", strings.Repeat(" ", depth[i]), s.Name)
		if s.Running {
			b.WriteString(" running")
		}
		if s.Class != "" {
			fmt.Fprintf(&b, " %s: %s", s.Class, s.Error)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func get(t *testing.T, lines *Timelines, ref string) Timeline {
	t.Helper()
	l, err := lines.Get(ref)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// run records one step of an object.
func run(ctx context.Context, name Name, o Object) context.Context {
	ctx, step := Begin(ctx, name, o)
	step.End(nil)
	return ctx
}

func TestTimelineOfPod(t *testing.T) {
	lines := NewTimelines()
	root := NewRecorder(lines).Context(t.Context())
	rpc, request := Start(root, RPC)
	ctx, pod := Begin(rpc, PodRun, Object{Pod: "abc1", Name: "ns/web"})
	_, files := Start(ctx, PodFiles)
	add, cni := Start(ctx, CNIAdd, Network("n"))
	_, plugin := Start(add, CNIPlugin)
	files.End(nil)
	if got, want := tree(get(t, lines, "ns/web")), "pod.run running\n pod.files\n cni.add running\n  cni.plugin running\n"; got != want {
		t.Errorf("timeline of a creation in progress:\n%swant:\n%s", got, want)
	}
	plugin.End(errors.New("no address"))
	cni.End(fmt.Errorf("attach: %w", errdefs.ErrUnavailable))
	pod.End(nil)
	request.End(nil)
	run(root, ContainerCreate, Object{Pod: "abc1", Container: "c2", Name: "app"})
	run(root, ImagePull, Object{Name: "ns/web"})
	run(root, ImagePull, Object{Name: "ns/unknown"})

	want := "pod.run\n pod.files\n cni.add unavailable: attach: unavailable\n  cni.plugin other: no address\nimage.pull\n"
	got := get(t, lines, "abc")
	if tree(got) != want {
		t.Errorf("timeline of the pod:\n%swant:\n%s", tree(got), want)
	}
	if len(got.Containers) != 1 || got.Containers[0].Container != "c2" || tree(got.Containers[0]) != "container.create\n" {
		t.Errorf("timelines of containers: got %+v", got.Containers)
	}
	if attrs := got.Steps[2].Attrs; len(attrs) != 1 || attrs[0] != Network("n") {
		t.Errorf("attributes of cni.add: got %v", attrs)
	}
	if c := get(t, lines, "ns/web/app"); c.ID() != "c2" || c.Pod != "abc1" {
		t.Errorf("timeline of the container by name: got %+v", c.Object)
	}
}

func TestFindTimeline(t *testing.T) {
	lines := NewTimelines()
	ctx := NewRecorder(lines).Context(t.Context())
	for i, id := range []string{"abc1", "abd2", "abe3"} {
		run(ctx, PodRun, Object{Pod: id, Name: []string{"ns/web", "ns/web", "ns/db"}[i]})
	}
	if got := get(t, lines, "ns/web").Pod; got != "abd2" {
		t.Errorf("pod of a name that two pods have: got %s, want the newest", got)
	}
	Forget(ctx, "abd2")
	if got := get(t, lines, "ns/web").Pod; got != "abc1" {
		t.Errorf("pod of a name whose newest pod was removed: got %s, want the pod that exists", got)
	}
	if got := get(t, lines, "abd"); !got.Removed {
		t.Error("the timeline of a removed pod is not marked")
	}
	for ref, want := range map[string]error{"ab": errdefs.ErrInvalidArgument, "x": errdefs.ErrNotFound, "": errdefs.ErrInvalidArgument, "ns/none": errdefs.ErrNotFound} {
		if _, err := lines.Get(ref); !errors.Is(err, want) {
			t.Errorf("timeline of %q: got error %v, want %v", ref, err, want)
		}
	}
}

func TestBoundOfRecords(t *testing.T) {
	lines := NewTimelines()
	ctx, pod := Begin(NewRecorder(lines).Context(t.Context()), PodRun, Object{Pod: "p"})
	for range maxRecords + 10 {
		_, step := Start(ctx, CNIPlugin)
		step.End(errors.New(strings.Repeat("ü", 1000)))
	}
	pod.End(nil)
	got := get(t, lines, "p")
	if len(got.Steps) != maxRecords || got.Dropped != 11 {
		t.Errorf("got %d steps and %d dropped, want %d and 11", len(got.Steps), got.Dropped, maxRecords)
	}
	if e := got.Steps[1].Error; len(e) > maxErrorText+len("…") || strings.ToValidUTF8(e, "?") != e {
		t.Errorf("error of %d bytes: %q, want at most %d bytes of valid text", len(e), e, maxErrorText)
	}
}

func TestBoundOfTimelines(t *testing.T) {
	lines := NewTimelines()
	ctx := NewRecorder(lines).Context(t.Context())
	for i := range maxTimelines + 5 {
		run(ctx, PodRun, Object{Pod: fmt.Sprint("pod-", i, ".")})
	}
	if n, total := len(lines.byID), lines.total.Load(); n != maxTimelines || total != maxTimelines {
		t.Errorf("got %d timelines with %d records, want %d", n, total, maxTimelines)
	}
	if _, err := lines.Get("pod-4."); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("the oldest timeline: got error %v, want ErrNotFound", err)
	}
	get(t, lines, "pod-5.")
	// Removed objects are dropped before objects that exist.
	Forget(ctx, "pod-100.")
	run(ctx, PodRun, Object{Pod: "new"})
	if _, err := lines.Get("pod-100."); err == nil {
		t.Error("the timeline of a removed object was kept, and that of an existing object dropped")
	}
	get(t, lines, "pod-5.")
}

func TestRemovedObjects(t *testing.T) {
	lines := NewTimelines()
	ctx := NewRecorder(lines).Context(t.Context())
	late, step := Begin(ctx, PodRemove, Object{Pod: "p0."})
	_, inner := Start(late, CNIDel)
	for i := range maxRemoved + 1 {
		id := fmt.Sprint("p", i, ".")
		run(ctx, PodStop, Object{Pod: id})
		Forget(ctx, id)
		Forget(ctx, id)
	}
	if len(lines.byID) != maxRemoved || len(lines.removed) != maxRemoved {
		t.Errorf("got %d timelines, want %d", len(lines.byID), maxRemoved)
	}
	// The steps of a timeline that was dropped can still begin and end.
	inner.End(nil)
	_, more := Start(late, CNIPlugin)
	more.End(nil)
	step.End(nil)
	if got := lines.total.Load(); got != maxRemoved {
		t.Errorf("records: got %d, want %d", got, maxRemoved)
	}
}

// pod records the steps of a pod with one container.
func pod(ctx context.Context, n int) {
	id, container := fmt.Sprintf("%064d", n), fmt.Sprintf("c%063d", n)
	run, root := Begin(ctx, PodRun, Object{Pod: id, Name: "default/web"})
	for range 8 {
		_, s := Start(run, PodRecord)
		s.End(nil)
	}
	for range 4 {
		_, s := Start(run, CNIPlugin, Plugin("bridge"), Command("ADD"))
		s.End(nil)
	}
	root.End(nil)
	for _, name := range []Name{ContainerCreate, ContainerStart} {
		create, root := Begin(ctx, name, Object{Pod: id, Container: container, Name: "app"})
		for range 8 {
			_, s := Start(create, RootFSMount)
			s.End(nil)
		}
		root.End(nil)
	}
}

// BenchmarkStep measures a step without recorder, with observers only, and in a timeline.
func BenchmarkStep(b *testing.B) {
	one := func(b *testing.B, ctx context.Context) {
		b.ReportAllocs()
		for b.Loop() {
			_, s := Start(ctx, CNIPlugin, Plugin("bridge"), Command("ADD"))
			s.End(nil)
		}
	}
	b.Run("none", func(b *testing.B) {
		// A context of a request has about ten layers.
		ctx := context.Background()
		for i := range 10 {
			ctx = context.WithValue(ctx, depthKey{}, i)
		}
		one(b, ctx)
	})
	b.Run("observer", func(b *testing.B) { one(b, NewRecorder(nil, discard{}).Context(context.Background())) })
	b.Run("timeline", func(b *testing.B) {
		lines := NewTimelines()
		root := NewRecorder(lines).Context(context.Background())
		ctx, pod := Begin(root, PodRun, Object{Pod: "0"})
		b.ReportAllocs()
		for n := 1; b.Loop(); n++ {
			if n%100 == 0 { // the next pod
				pod.End(nil)
				Forget(ctx, pod.info.Object.Pod)
				ctx, pod = Begin(root, PodRun, Object{Pod: fmt.Sprint(n)})
			}
			_, s := Start(ctx, CNIPlugin, Plugin("bridge"), Command("ADD"))
			s.End(nil)
		}
	})
}

type discard struct{}

func (discard) StepEnded(context.Context, *Info) {}

// BenchmarkMemory reports the memory of the timelines of a pod with one container, in bytes.
func BenchmarkMemory(b *testing.B) {
	lines := NewTimelines()
	ctx := NewRecorder(lines).Context(context.Background())
	const pods = 1000
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for n := range pods {
		pod(ctx, n)
	}
	used := heap() - before
	runtime.KeepAlive(lines)
	for b.Loop() {
	}
	b.ReportMetric(float64(used)/pods, "B/pod")
}

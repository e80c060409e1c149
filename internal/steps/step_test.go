package steps

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
)

// observer collects the steps that end.
type observer struct {
	mu    sync.Mutex
	lines []string
}

func (o *observer) StepEnded(_ context.Context, i *Info) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lines = append(o.lines, fmt.Sprintf("%s %s %v %s", i.Name, i.Object.ID(), i.Attrs(), i.Class))
}

// nesting is a StartObserver that counts the steps above a step.
type nesting struct{ observer }

type depthKey struct{}

func (*nesting) StepStarted(ctx context.Context, _ *Info) context.Context {
	depth, _ := ctx.Value(depthKey{}).(int)
	return context.WithValue(ctx, depthKey{}, depth+1)
}

func (o *nesting) StepEnded(ctx context.Context, i *Info) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lines = append(o.lines, fmt.Sprintf("%s depth %d", i.Name, ctx.Value(depthKey{})))
}

func TestObservers(t *testing.T) {
	plain, nested := &observer{}, &nesting{}
	ctx := NewRecorder(nil, plain, nested).Context(t.Context())
	ctx, rpc := Start(ctx, RPC, Method("RunPodSandbox"))
	run, pod := Begin(ctx, PodRun, Object{Pod: "p1"})
	add, cni := Start(run, CNIAdd, Network("n"), Interface("eth0"))
	_, plugin := Start(add, CNIPlugin, Plugin("bridge"))
	plugin.End(fmt.Errorf("no address: %w", errdefs.ErrUnavailable))
	cni.End(errors.New("exit status 1"))
	pod.End(nil)
	rpc.End(nil)
	want := []string{
		"cni.plugin p1 [{plugin bridge}] unavailable", "cni.add p1 [{network n} {interface eth0}] other",
		"pod.run p1 [] ", "rpc  [{method RunPodSandbox}] ",
	}
	if !slices.Equal(plain.lines, want) {
		t.Errorf("ended steps: got %q, want %q", plain.lines, want)
	}
	wantNested := []string{"cni.plugin depth 4", "cni.add depth 3", "pod.run depth 2", "rpc depth 1"}
	if !slices.Equal(nested.lines, wantNested) {
		t.Errorf("depths: got %q, want %q", nested.lines, wantNested)
	}
}

func TestContextOfStep(t *testing.T) {
	parent, cancel := context.WithCancelCause(t.Context())
	ctx, step := Start(NewRecorder(nil).Context(parent), PodRun)
	step.End(nil)
	cause := errors.New("cause")
	cancel(cause)
	if <-ctx.Done(); !errors.Is(context.Cause(ctx), cause) {
		t.Errorf("cause of the context of a step: got %v, want %v", context.Cause(ctx), cause)
	}
	// Work that continues after its caller has left is still recorded.
	if _, step := Start(context.WithoutCancel(ctx), PodRun); step == nil {
		t.Error("a step in a context without cancellation is not recorded")
	}
}

func TestWithoutRecorder(t *testing.T) {
	ctx := t.Context()
	allocs := testing.AllocsPerRun(100, func() {
		ctx, step := Start(ctx, CNIAdd, Network("n"), Interface("eth0"))
		Forget(ctx, "p")
		step.End(nil)
	})
	if allocs != 0 {
		t.Errorf("allocations of a step without recorder: got %v, want 0", allocs)
	}
	var none *Recorder
	if got := none.Context(ctx); got != ctx {
		t.Error("the context of a nil recorder differs from its parent")
	}
}

func TestClasses(t *testing.T) {
	for want, err := range map[Class]error{
		"":            nil,
		ClassOther:    errors.New("exit status 1"),
		ClassTimeout:  fmt.Errorf("wait: %w", context.DeadlineExceeded),
		ClassCanceled: fmt.Errorf("wait: %w", context.Canceled),
		ClassNotFound: errors.Join(errors.New("other"), errdefs.ErrNotFound),
	} {
		if got := ClassOf(err); got != want {
			t.Errorf("class of %v: got %q, want %q", err, got, want)
		}
	}
}

func TestNamesAreComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, n := range Names() {
		if n.String() == "" || n.Help() == "" || seen[n.String()] {
			t.Errorf("name %d: name %q and help %q, want unique texts", n, n, n.Help())
		}
		if !strings.HasSuffix(n.Help(), ".") {
			t.Errorf("help of %s is not a sentence: %q", n, n.Help())
		}
		seen[n.String()] = true
	}
}

func TestDocumentation(t *testing.T) {
	page, err := os.ReadFile("../../docs/tracing.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range Names() {
		row := "| `" + n.String() + "` | " + n.Help()
		if n.Waits() {
			row += " Only waits."
		}
		if !strings.Contains(string(page), row+" |\n") {
			t.Errorf("docs/tracing.md lacks the row of %s: %s |", n, row)
		}
	}
}

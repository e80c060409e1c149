package daemon

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/internal/daemon/handlers"
	"github.com/criserver/criserver/sandbox"
	"github.com/criserver/criserver/server/admin"
)

// TestReloadsAreSerial checks that a reload waits for another one, and that the end of the daemon
// cancels the running reload and refuses others.
func TestReloadsAreSerial(t *testing.T) {
	r := newReloads()
	r.begin(t.Context(), nil)
	ctx, unlock, err := r.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, _, err := r.lock(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("lock during a reload: got %v", err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); r.end() }()
	<-ctx.Done()
	select {
	case <-ended:
		t.Error("the end did not wait for the reload")
	default:
	}
	if _, _, err := r.lock(t.Context()); !errdefs.IsUnavailable(err) {
		t.Errorf("lock after the end: got %v, want ErrUnavailable", err)
	}
	unlock()
	<-ended
}

func TestReloadDuringStart(t *testing.T) {
	p := &parts{reloads: newReloads()}
	if _, err := p.Reload(t.Context()); !errdefs.IsUnavailable(err) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := New(Config{}).Reload(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("daemon that does not run: got %v", err)
	}
}

// TestReadyPods checks that pods without a handler count for the default handler of their start, and that stopped pods
// do not count.
func TestReadyPods(t *testing.T) {
	got := readyPods([]*sandbox.Pod{
		{RuntimeHandler: "a", Ready: true}, {RuntimeHandler: "a", DefaultHandler: "b", Ready: true}, {DefaultHandler: "b", Ready: true}, {RuntimeHandler: "c"},
	})
	if want := map[string]int{"a": 2, "b": 1}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestHandlerErrors(t *testing.T) {
	failure := errors.New("no answer")
	got := handlerErrors([]handlers.Unavailable{{Name: "bad", Err: failure}})
	if !slices.Equal(got, []admin.SettingError{{Key: "runtimes.bad.path", Err: failure}}) {
		t.Errorf("got %+v", got)
	}
}

func TestReloadResult(t *testing.T) {
	got := reloadResult([]config.Change{{Key: "root", Old: "a", New: "b", Restart: true}, {Key: "log_level", Old: "c", New: "d"}, {Key: "image.pinned"}})
	if !slices.Equal(got.NeedRestart, []admin.SettingChange{{Key: "root", Old: "a", New: "b"}}) ||
		!slices.Equal(got.Changed, []admin.SettingChange{{Key: "image.pinned"}, {Key: "log_level", Old: "c", New: "d"}}) {
		t.Errorf("got %+v", got)
	}
}

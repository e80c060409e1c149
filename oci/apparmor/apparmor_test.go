package apparmor

import (
	"errors"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
)

type fake struct {
	mu       sync.Mutex
	loaded   map[string]bool
	fail     error
	installs int
}

func (f *fake) IsLoaded(name string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.loaded[name], nil
}

func (f *fake) Install(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.installs++
	if f.fail == nil {
		f.loaded[name] = true
	}
	return f.fail
}

func TestEnsure(t *testing.T) {
	f := &fake{loaded: map[string]bool{"of-the-node": true}}
	p := &Profiles{kernel: f}
	if err := p.Ensure(t.Context(), "of-the-node"); err != nil {
		t.Error(err)
	}
	if err := p.Ensure(t.Context(), "missing"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a profile that is not loaded: %v", err)
	}
	if f.installs != 0 {
		t.Error("only the default is for the daemon to load")
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := p.Ensure(t.Context(), DefaultProfile); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if f.installs != 1 {
		t.Errorf("loads of the default profile: got %d, want 1", f.installs)
	}
	delete(f.loaded, DefaultProfile) // the administrator unloads it
	if err := p.Ensure(t.Context(), DefaultProfile); err != nil || f.installs != 2 {
		t.Errorf("ensure after an unload: got error %v and %d loads, want 2 loads", err, f.installs)
	}
}

func TestEnsureFails(t *testing.T) {
	f := &fake{loaded: map[string]bool{}, fail: errors.New("no apparmor_parser")}
	if err := (&Profiles{kernel: f}).Ensure(t.Context(), DefaultProfile); !errdefs.IsFailedPrecondition(err) || !errors.Is(err, f.fail) {
		t.Errorf("got %v", err)
	}
}

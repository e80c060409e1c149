package daemon

import (
	"context"
	"errors"
	"testing"
)

// TestStageOutlivesContext checks that the parts of a stage run until the stage ends, also if
// the context of the daemon ends before.
func TestStageOutlivesContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	s := newStage(ctx, cancel)
	ended := make(chan struct{})
	s.run(func(ctx context.Context) error {
		defer close(ended)
		<-ctx.Done()
		return nil
	})
	cancel(nil)
	select {
	case <-ended:
		t.Error("the part ended with the context of the daemon")
	default:
	}
	if s.ctx.Err() != nil {
		t.Error("the context of the stage ended with the context of the daemon")
	}
	if err := s.end(); err != nil {
		t.Errorf("end: got %v", err)
	}
	<-ended
}

// TestStageError checks that the error of a part ends the daemon, and that end returns it.
func TestStageError(t *testing.T) {
	ctx, fail := context.WithCancelCause(t.Context())
	s := newStage(ctx, fail)
	failure := errors.New("part failed")
	s.run(func(context.Context) error { return failure })
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, failure) {
		t.Errorf("the context of the daemon ended with %v, want %v", err, failure)
	}
	if err := s.end(); !errors.Is(err, failure) {
		t.Errorf("end: got %v, want %v", err, failure)
	}
}

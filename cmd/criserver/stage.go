package main

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// stage is a group of parts that run until the stage ends. The context of a stage
// outlives the signal that ends the daemon, so that the parts that use a stage can
// end before it.
type stage struct {
	ctx    context.Context //nolint:containedctx // parts are added during the whole start
	cancel context.CancelFunc
	fail   context.CancelCauseFunc // ends the daemon
	group  errgroup.Group
}

// newStage returns a stage without parts. fail is called with the error of a part.
func newStage(ctx context.Context, fail context.CancelCauseFunc) *stage {
	s := &stage{fail: fail}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return s
}

// run starts a part. An error of the part ends the daemon.
func (s *stage) run(part func(context.Context) error) {
	s.group.Go(func() error {
		err := part(s.ctx)
		if err != nil {
			s.fail(err)
		}
		return err
	})
}

// end ends all parts, waits for them, and returns the first error.
func (s *stage) end() error {
	s.cancel()
	return s.group.Wait()
}

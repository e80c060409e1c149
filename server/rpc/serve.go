package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
)

// Serve serves g on the listener until ctx ends. Then it accepts no new calls, calls
// stopping unless it is nil, waits for the running calls for grace at most, and returns when
// all calls have ended.
func Serve(ctx context.Context, g *grpc.Server, l net.Listener, grace time.Duration, stopping func()) error {
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	if stopping != nil {
		stopping()
	}
	timer := time.AfterFunc(grace, g.Stop)
	defer timer.Stop()
	g.GracefulStop()
	err := <-served
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil // ctx ended before g.Serve began
	}
	return err
}

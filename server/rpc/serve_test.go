package rpc

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
)

// TestServeAfterEnd checks that Serve returns no error and closes the listener if its context has ended already, as
// after a SIGTERM at the end of the start.
func TestServeAfterEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 50 {
		l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s.sock"))
		if err != nil {
			t.Fatal(err)
		}
		if err := Serve(ctx, grpc.NewServer(), l, time.Second, nil); err != nil {
			t.Fatalf("got %v, want no error", err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("accept after the end: got %v, want a closed listener", err)
		}
	}
}

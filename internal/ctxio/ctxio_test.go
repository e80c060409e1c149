package ctxio

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

// TestReader checks that a reader returns the content of the underlying reader, and then the cause of its context.
func TestReader(t *testing.T) {
	cause := errors.New("cause")
	ctx, cancel := context.WithCancelCause(t.Context())
	r := NewReader(ctx, strings.NewReader("ab"))
	b := make([]byte, 1)
	if n, err := r.Read(b); n != 1 || err != nil || b[0] != 'a' {
		t.Errorf("got %d, %v, %q", n, err, b)
	}
	cancel(cause)
	if rest, err := io.ReadAll(r); len(rest) != 0 || !errors.Is(err, cause) {
		t.Errorf("after the end of the context: got %q, %v", rest, err)
	}
}

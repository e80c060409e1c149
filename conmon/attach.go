package conmon

import (
	"context"
	"errors"
	"io"
)

// Size is that of a terminal, in characters.
type Size struct{ Width, Height uint16 }

// AttachOptions are the streams to join with a container's; nil ones are left
// out.
type AttachOptions struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Resize brings new terminal sizes until it is closed.
	Resize <-chan Size
}

// ErrCut says that the monitor ended an attach before the container's end: the
// client was too slow for what the container wrote, or the monitor died.
var ErrCut = errors.New("attach was cut off")

// Attach joins the streams of opts with those of a container and returns when
// the container has ended, with its exit code, or when ctx has.
func Attach(ctx context.Context, runDir string, opts AttachOptions) (exitCode int32, err error) {
	return 0, errors.ErrUnsupported
}

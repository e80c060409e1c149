package streaming

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/sirupsen/logrus"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"
	utilexec "k8s.io/utils/exec"

	"github.com/criserver/criserver/container"
)

type execRequest struct {
	id  string
	cmd []string
	Options
}

type attachRequest struct {
	id string
	Options
}

// session takes the request that the token in the address stands for, and runs
// serve for it.
func session[R any](s *Server, w http.ResponseWriter, r *http.Request, serve func(R)) {
	request, _ := s.pending.take(r.PathValue("token"))
	wanted, ok := request.(R)
	if !ok {
		http.NotFound(w, r)
		return
	}
	if c := connOf(r.Context()); c != nil {
		defer c.finish()
	}
	// The pattern, as the address holds the token.
	logrus.WithContext(r.Context()).WithFields(logrus.Fields{"endpoint": r.Pattern, "transport": transport(r)}).Debug("stream opened")
	serve(wanted)
}

// transport is what carries the streams, for the log.
func transport(r *http.Request) string {
	if wsstream.IsWebSocketRequest(r) {
		return "websocket"
	}
	return "spdy"
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	session(s, w, r, func(q execRequest) {
		x := &executor{s, q.Options}
		if speaksV5(r) {
			serveV5(w, r, q.Options, s.cfg.IdleTimeout, func(ctx context.Context, in io.Reader, out, errs io.WriteCloser, resize <-chan remotecommand.TerminalSize) error {
				return x.ExecInContainer(ctx, "", "", q.id, q.cmd, in, out, errs, q.TTY, resize, 0)
			})
			return
		}
		remotecommand.ServeExec(w, r, x, "", "", q.id, q.cmd, &q.Options, s.cfg.IdleTimeout, creationTimeout, remotecommand.SupportedStreamingProtocols)
	})
}

func (s *Server) attach(w http.ResponseWriter, r *http.Request) {
	session(s, w, r, func(q attachRequest) {
		x := &executor{s, q.Options}
		if speaksV5(r) {
			serveV5(w, r, q.Options, s.cfg.IdleTimeout, func(ctx context.Context, in io.Reader, out, errs io.WriteCloser, resize <-chan remotecommand.TerminalSize) error {
				return x.AttachContainer(ctx, "", "", q.id, in, out, errs, q.TTY, resize)
			})
			return
		}
		remotecommand.ServeAttach(w, r, x, "", "", q.id, &q.Options, s.cfg.IdleTimeout, creationTimeout, remotecommand.SupportedStreamingProtocols)
	})
}

// executor does for one session what the protocol asks for.
type executor struct {
	s       *Server
	options Options
}

// ExecInContainer runs the command. A non-zero exit code is an error that the
// protocol knows.
func (x *executor) ExecInContainer(ctx context.Context, _, _, id string, cmd []string, in io.Reader, out, errs io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	if !x.s.begin() {
		return errEnding
	}
	defer x.s.sessions.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begun := time.Now()
	code, err := x.s.cfg.Containers.Exec(ctx, id, cmd, tty, x.streams(ctx, in, out, errs, resize))
	ended(ctx, "exec", begun, err, logrus.Fields{"container": id, "exitCode": code})
	closeStreams(out, errs)
	if err == nil && code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("exit code %d", code), Code: int(code)}
	}
	return err
}

// AttachContainer attaches until the container, or the client, is gone.
func (x *executor) AttachContainer(ctx context.Context, _, _, id string, in io.Reader, out, errs io.WriteCloser, _ bool, resize <-chan remotecommand.TerminalSize) error {
	if !x.s.begin() {
		return errEnding
	}
	defer x.s.sessions.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begun := time.Now()
	err := x.s.cfg.Containers.Attach(ctx, id, x.streams(ctx, in, out, errs, resize))
	ended(ctx, "attach", begun, err, logrus.Fields{"container": id})
	closeStreams(out, errs)
	return err
}

// streams leaves out what was not asked for: the protocol may hand over streams
// that a client opened all the same, or dummies.
func (x *executor) streams(ctx context.Context, in io.Reader, out, errs io.Writer, resize <-chan remotecommand.TerminalSize) container.Streams {
	s := container.Streams{Resize: sizes(ctx, resize)}
	if x.options.Stdin {
		s.Stdin = in
	}
	if x.options.Stdout {
		s.Stdout = out
	}
	if x.options.Stderr {
		s.Stderr = errs
	}
	return s
}

// sizes passes terminal sizes on until ctx ends. Of those that come faster than
// they are used the last counts: the protocol never waits, as input waits with
// it.
func sizes(ctx context.Context, in <-chan remotecommand.TerminalSize) <-chan container.Size {
	out := make(chan container.Size, 1)
	go func() {
		defer close(out)
		for {
			select {
			case <-ctx.Done():
				return
			case size, ok := <-in:
				if !ok {
					return
				}
				select {
				case <-out: // the one before, not yet used
				default:
				}
				out <- container.Size{Width: size.Width, Height: size.Height}
			}
		}
	}()
	return out
}

// closeStreams tells the client that it has all of the output, before it is
// told the outcome.
func closeStreams(streams ...io.Closer) {
	for _, s := range streams {
		if s != nil {
			_ = s.Close()
		}
	}
}

// ended logs a session.
func ended(ctx context.Context, what string, begun time.Time, err error, f logrus.Fields) {
	f["duration"] = time.Since(begun).Round(time.Millisecond).String()
	entry := logrus.WithContext(ctx).WithFields(f)
	if cause := context.Cause(ctx); cause != nil {
		entry.Debug(what + " ended: " + cause.Error())
		return
	}
	if err != nil {
		entry.WithError(err).Warn(what + " failed")
		return
	}
	entry.Debug(what + " ended")
}

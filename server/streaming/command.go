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

// execRequest is a request of the RPC Exec.
type execRequest struct {
	id  string
	cmd []string
	Options
}

// attachRequest is a request of the RPC Attach.
type attachRequest struct {
	id string
	Options
}

// serveRequest calls serve with the request that belongs to the token in the URL. It
// answers 404 if there is no request of type R.
func serveRequest[R any](s *Server, w http.ResponseWriter, r *http.Request, serve func(R)) {
	request, _ := s.pending.take(r.PathValue("token"))
	typed, ok := request.(R)
	if !ok {
		http.NotFound(w, r)
		return
	}
	if c := connFromContext(r.Context()); c != nil {
		defer c.closeAfterSession()
	}
	// The log has the pattern and not the path, which contains the token.
	logrus.WithContext(r.Context()).WithFields(logrus.Fields{"endpoint": r.Pattern, "transport": transport(r)}).Debug("stream opened")
	serve(typed)
}

// transport returns the name of the protocol for the log.
func transport(r *http.Request) string {
	if wsstream.IsWebSocketRequest(r) {
		return "websocket"
	}
	return "spdy"
}

// exec handles the URLs of Exec.
func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	serveRequest(s, w, r, func(req execRequest) {
		x := &executor{s, req.Options}
		if isV5Request(r) {
			serveV5(w, r, req.Options, s.idleTimeout(), func(ctx context.Context, in io.Reader, out, errs io.WriteCloser, resize <-chan remotecommand.TerminalSize) error {
				return x.ExecInContainer(ctx, "", "", req.id, req.cmd, in, out, errs, req.TTY, resize, 0)
			})
			return
		}
		remotecommand.ServeExec(w, r, x, "", "", req.id, req.cmd, &req.Options, s.idleTimeout(), creationTimeout, remotecommand.SupportedStreamingProtocols)
	})
}

// attach handles the URLs of Attach.
func (s *Server) attach(w http.ResponseWriter, r *http.Request) {
	serveRequest(s, w, r, func(req attachRequest) {
		x := &executor{s, req.Options}
		if isV5Request(r) {
			serveV5(w, r, req.Options, s.idleTimeout(), func(ctx context.Context, in io.Reader, out, errs io.WriteCloser, resize <-chan remotecommand.TerminalSize) error {
				return x.AttachContainer(ctx, "", "", req.id, in, out, errs, req.TTY, resize)
			})
			return
		}
		remotecommand.ServeAttach(w, r, x, "", "", req.id, &req.Options, s.idleTimeout(), creationTimeout, remotecommand.SupportedStreamingProtocols)
	})
}

// executor implements remotecommand.Executor and remotecommand.Attacher for one
// session.
type executor struct {
	s       *Server
	options Options
}

// ExecInContainer runs a command in a container. It returns a non-zero exit code as
// the error type that the protocol translates for the client.
func (x *executor) ExecInContainer(ctx context.Context, _, _, id string, cmd []string, in io.Reader, out, errs io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	if !x.s.startSession() {
		return errStopping
	}
	defer x.s.sessions.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := time.Now()
	code, err := x.s.cfg.Containers.Exec(ctx, id, cmd, tty, x.streams(ctx, in, out, errs, resize))
	logSession(ctx, "exec", start, err, logrus.Fields{"container": id, "exitCode": code})
	closeStreams(out, errs)
	if err == nil && code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("exit code %d", code), Code: int(code)}
	}
	return err
}

// AttachContainer connects the streams to a container until the container exits or
// the client leaves.
func (x *executor) AttachContainer(ctx context.Context, _, _, id string, in io.Reader, out, errs io.WriteCloser, _ bool, resize <-chan remotecommand.TerminalSize) error {
	if !x.s.startSession() {
		return errStopping
	}
	defer x.s.sessions.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := time.Now()
	err := x.s.cfg.Containers.Attach(ctx, id, x.streams(ctx, in, out, errs, resize))
	logSession(ctx, "attach", start, err, logrus.Fields{"container": id})
	closeStreams(out, errs)
	return err
}

// streams returns the streams that the request asked for. The library can pass other
// streams that a client opened in addition, and placeholders.
func (x *executor) streams(ctx context.Context, in io.Reader, out, errs io.Writer, resize <-chan remotecommand.TerminalSize) container.Streams {
	s := container.Streams{Resize: latestSizes(ctx, resize)}
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

// latestSizes returns a channel with the terminal sizes of in, until ctx ends. A new
// size replaces one that was not received yet. So the library never waits for a
// receiver, which would also delay the input of the command.
func latestSizes(ctx context.Context, in <-chan remotecommand.TerminalSize) <-chan container.Size {
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
				case <-out: // the size before, which was not received
				default:
				}
				out <- container.Size{Width: size.Width, Height: size.Height}
			}
		}
	}()
	return out
}

// closeStreams closes the output streams, so that the client sees the end of the
// output before it gets the status.
func closeStreams(streams ...io.Closer) {
	for _, s := range streams {
		if s != nil {
			_ = s.Close()
		}
	}
}

// logSession logs the end of a session. It is not a failure if the client or a stop of
// the daemon has ended the session.
func logSession(ctx context.Context, what string, start time.Time, err error, f logrus.Fields) {
	f["duration"] = time.Since(start).Round(time.Millisecond).String()
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

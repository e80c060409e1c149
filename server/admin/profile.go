package admin

import (
	"bufio"
	"fmt"
	"io"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"

	adminv1 "github.com/criserver/criserver/admin/v1"
)

const (
	// profileChunk is the largest number of bytes in a message of a profile.
	profileChunk = 64 << 10

	defaultProfileDuration = 30 * time.Second
	minProfileDuration     = time.Second
	maxProfileDuration     = 10 * time.Minute
)

// GetProfile sends a profile of the daemon's process.
//
// Errors: InvalidArgument if the kind is unknown or the duration is out of range, and
// FailedPrecondition if another CPU profile is in progress.
func (s *Server) GetProfile(req *adminv1.GetProfileRequest, stream grpc.ServerStreamingServer[adminv1.GetProfileResponse]) error {
	duration := defaultProfileDuration
	if req.GetDuration() != nil {
		if req.GetKind() != adminv1.ProfileKind_PROFILE_KIND_CPU {
			return fmt.Errorf("duration: only a CPU profile has a duration: %w", errdefs.ErrInvalidArgument)
		}
		if duration = req.GetDuration().AsDuration(); duration < minProfileDuration || duration > maxProfileDuration {
			return fmt.Errorf("duration: must be from %s to %s, is %s: %w", minProfileDuration, maxProfileDuration, duration, errdefs.ErrInvalidArgument)
		}
	}
	w := bufio.NewWriterSize(profileWriter{stream}, profileChunk)
	var err error
	switch req.GetKind() {
	case adminv1.ProfileKind_PROFILE_KIND_GOROUTINES:
		err = pprof.Lookup("goroutine").WriteTo(w, 2)
	case adminv1.ProfileKind_PROFILE_KIND_HEAP:
		runtime.GC() // the profile contains the objects that were live at the last collection
		err = pprof.Lookup("heap").WriteTo(w, 0)
	case adminv1.ProfileKind_PROFILE_KIND_CPU:
		err = s.profileCPU(stream, w, duration)
	default:
		return fmt.Errorf("kind: must be goroutines, heap or CPU, is %s: %w", req.GetKind(), errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return err
	}
	return w.Flush()
}

// profileCPU writes a CPU profile. The profile ends early if the client leaves or the
// server stops.
func (s *Server) profileCPU(stream grpc.ServerStream, w io.Writer, duration time.Duration) error {
	select {
	case s.profiling <- struct{}{}:
		defer func() { <-s.profiling }()
	default:
		return fmt.Errorf("another CPU profile is in progress: %w", errdefs.ErrFailedPrecondition)
	}
	if err := pprof.StartCPUProfile(w); err != nil {
		return fmt.Errorf("start CPU profile: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	defer pprof.StopCPUProfile()
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-s.stopping:
		return nil
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
}

// profileWriter sends each write as a message. A bufio.Writer limits the size of writes,
// except that it passes on larger writes as they are.
type profileWriter struct {
	stream grpc.ServerStreamingServer[adminv1.GetProfileResponse]
}

func (w profileWriter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		n := min(len(p), profileChunk)
		// The transport may keep the message after Send, so it must not refer to the buffer.
		data := append([]byte(nil), p[:n]...)
		if err := w.stream.Send(&adminv1.GetProfileResponse{Data: data}); err != nil {
			return written, err
		}
		written, p = written+n, p[n:]
	}
	return written, nil
}

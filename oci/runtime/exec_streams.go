package runtime

import (
	"errors"
	"os"
	"sync"
	"time"
)

// execStreams contains the output pipes of a command and the output.
type execStreams struct {
	stdout, stderr limitedBuffer
	readers        [2]*os.File
	writers        [2]*os.File
	copies         sync.WaitGroup
}

func newExecStreams() (*execStreams, error) {
	s := &execStreams{stdout: limitedBuffer{limit: MaxExecOutput}, stderr: limitedBuffer{limit: MaxExecOutput}}
	for i, b := range []*limitedBuffer{&s.stdout, &s.stderr} {
		r, w, err := os.Pipe()
		if err != nil {
			s.close()
			return nil, err
		}
		s.readers[i], s.writers[i] = r, w
		s.copies.Go(func() { collect(b, r) })
	}
	return s, nil
}

// closeWriters closes this process's copies of the write ends.
func (s *execStreams) closeWriters() {
	for i, w := range s.writers {
		if w != nil {
			_ = w.Close()
			s.writers[i] = nil
		}
	}
}

// collect reads a stream until the pipe ends, or until the deadline that drain has set. After
// the deadline it reads what is still in the pipe: a goroutine that got no CPU time before the
// deadline would otherwise lose output.
func collect(b *limitedBuffer, r *os.File) {
	if _, err := b.ReadFrom(r); errors.Is(err, os.ErrDeadlineExceeded) {
		_ = output{r, b}.drain(make([]byte, copyBufferSize)) // writes to b never fail
	}
}

// drain waits for the end of the output, for at most drainTimeout.
func (s *execStreams) drain() {
	for _, r := range s.readers {
		_ = r.SetReadDeadline(time.Now().Add(drainTimeout))
	}
	s.copies.Wait()
}

// close closes all pipes.
func (s *execStreams) close() {
	s.closeWriters()
	for _, r := range s.readers {
		if r != nil {
			_ = r.Close()
		}
	}
	s.copies.Wait()
}

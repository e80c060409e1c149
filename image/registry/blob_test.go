package registry

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// TestBlobResume breaks the connection while the client reads a blob.
func TestBlobResume(t *testing.T) {
	const part = 300 << 10
	type answer func(w http.ResponseWriter, r *http.Request, from int64)
	full := func(w http.ResponseWriter, b []byte) {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = w.Write(b)
	}
	ranged := func(w http.ResponseWriter, from, to int64) {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(content)-1, len(content)))
		w.Header().Set("Content-Length", fmt.Sprint(int64(len(content))-from))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(content[from:to])
	}
	for name, c := range map[string]struct {
		answer answer
		err    func(error) bool // nil: none
	}{
		"several interruptions": {func(w http.ResponseWriter, _ *http.Request, from int64) {
			to := min(from+part, int64(len(content)))
			if from == 0 {
				full(w, content[:to])
			} else {
				ranged(w, from, to)
			}
			if to < int64(len(content)) {
				panic(http.ErrAbortHandler)
			}
		}, nil},
		"no ranges": {func(w http.ResponseWriter, r *http.Request, from int64) {
			if from == 0 {
				full(w, content[:part])
				panic(http.ErrAbortHandler)
			}
			full(w, content)
		}, nil},
		"too short, no Content-Length": {func(w http.ResponseWriter, _ *http.Request, from int64) {
			if from == 0 {
				_, _ = w.Write(content[:part])
				w.(http.Flusher).Flush()
				return
			}
			ranged(w, from, int64(len(content)))
		}, nil},
		"broken after the last byte": {func(w http.ResponseWriter, _ *http.Request, from int64) {
			if from > 0 {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return
			}
			_, _ = w.Write(content)
			w.(http.Flusher).Flush() // the body is chunked
			panic(http.ErrAbortHandler)
		}, nil},
		"too long": {func(w http.ResponseWriter, _ *http.Request, from int64) {
			_, _ = w.Write(append(bytes.Clone(content), 'x'))
		}, errdefs.IsDataLoss},
		"wrong range": {func(w http.ResponseWriter, _ *http.Request, from int64) {
			if from == 0 {
				full(w, content[:part])
				panic(http.ErrAbortHandler)
			}
			ranged(w, from-1, int64(len(content)))
		}, errdefs.IsDataLoss},
		"no progress": {func(w http.ResponseWriter, _ *http.Request, from int64) {
			if from == 0 {
				full(w, content[:part])
			} else {
				ranged(w, from, from)
			}
			panic(http.ErrAbortHandler)
		}, func(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }},
		"deleted meanwhile": {func(w http.ResponseWriter, _ *http.Request, from int64) {
			if from == 0 {
				full(w, content[:part])
				panic(http.ErrAbortHandler)
			}
			w.WriteHeader(http.StatusNotFound)
		}, func(err error) bool { var s *StatusError; return errors.As(err, &s) && s.Code == 404 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if isRoot(r) {
					return
				}
				var from int64
				if h := r.Header.Get("Range"); h != "" {
					if _, err := fmt.Sscanf(h, "bytes=%d-", &from); err != nil {
						t.Errorf("got Range header %q", h)
					}
				}
				c.answer(w, r, from)
			})
			b, err := client(t, host, nil).fetch(t.Context())
			switch {
			case c.err == nil && (err != nil || !bytes.Equal(b, content)):
				t.Errorf("read %d bytes, %v", len(b), err)
			case c.err != nil && !c.err(err):
				t.Errorf("got error %v", err)
			}
		})
	}
}

// TestBlobResumeAfterRestart restarts the server while the client reads a blob. The server
// refuses connections when the client tries to resume the blob the first time.
func TestBlobResumeAfterRestart(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	var serverErr error
	var restart sync.WaitGroup
	second := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) })}
	first := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isRoot(r) {
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = w.Write(content[:1000])
		_ = l.Close()
		restart.Go(func() {
			time.Sleep(1500 * time.Millisecond) // the client pauses for 1 s, and then for 2 s
			again, err := net.Listen("tcp", host)
			if err != nil {
				serverErr = err
				return
			}
			restart.Go(func() { _ = second.Serve(again) })
		})
		panic(http.ErrAbortHandler)
	})}
	restart.Go(func() { _ = first.Serve(l) })
	b, err := client(t, host, nil).fetch(t.Context())
	_, _ = first.Close(), second.Close()
	restart.Wait()
	if err != nil || serverErr != nil || !bytes.Equal(b, content) {
		t.Errorf("read %d bytes, %v, %v", len(b), err, serverErr)
	}
}

// TestBlobWithContentEncoding runs a server that labels a compressed blob with its encoding, as
// object stores do if the blob was stored with that label. The client must not decompress it.
func TestBlobWithContentEncoding(t *testing.T) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write(content)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	host := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(packed.Bytes())
	})
	r, _, err := client(t, host, nil).Blob(t.Context(), digest.FromBytes(packed.Bytes()), int64(packed.Len()))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, packed.Bytes()) {
		t.Errorf("read %d bytes, %v, want %d bytes", len(b), err, packed.Len())
	}
}

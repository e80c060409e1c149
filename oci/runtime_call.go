package oci

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// A runtime is given its input and its log as anonymous memory, so that no call
// leaves a file behind, however it ends.
const (
	logPath   = "/proc/self/fd/3"
	inputPath = "/proc/self/fd/4"

	maxAnswer  = 1 << 20 // of what a command prints, in bytes
	maxLog     = 64 << 10
	maxWords   = 1 << 10 // of the runtime's words in an error
	logOptions = 4
	// waitAfter bounds the wait for output that a process left by the runtime
	// still holds open.
	waitAfter = 5 * time.Second
)

// call runs one command of the runtime to its end and returns what it printed.
// When ctx ends first, the runtime is killed.
func (r *Runtime) call(ctx context.Context, input []byte, args ...string) ([]byte, error) {
	files, err := r.files(input)
	if err != nil {
		return nil, err
	}
	defer closeAll(files)
	stdout, stderr := &bounded{limit: maxAnswer}, &bounded{limit: maxLog}
	cmd := r.command(ctx, files, logPath, args)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.WaitDelay = waitAfter
	if err := cmd.Run(); err != nil {
		return nil, r.failed(ctx, args[0], err, readLog(files[0]), stderr.data)
	}
	return stdout.data, nil
}

func (r *Runtime) command(ctx context.Context, files []*os.File, log string, args []string) *exec.Cmd {
	own := r.Args()
	all := make([]string, 0, len(own)+len(args)+logOptions)
	all = append(all, own[1:]...)
	all = append(all, "--log", log, "--log-format", "json")
	cmd := exec.CommandContext(ctx, own[0], append(all, args...)...)
	cmd.ExtraFiles = files
	return cmd
}

// files are descriptors 3 and up of the runtime: its log, and input if any.
func (r *Runtime) files(input []byte) ([]*os.File, error) {
	log, err := memory("log", nil)
	if err != nil || input == nil {
		return []*os.File{log}, err
	}
	in, err := memory("input", input)
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return []*os.File{log, in}, nil
}

func memory(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("criserver-"+name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.WriteAt(content, 0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

func readLog(f *os.File) []byte {
	b, _ := io.ReadAll(io.NewSectionReader(f, 0, maxLog))
	return b
}

// failed words the failure of a command by what the runtime said, in its log
// or else on its standard error.
func (r *Runtime) failed(ctx context.Context, verb string, err error, log, stderr []byte) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	words := LogError(log)
	if words == "" {
		words = clean(stderr)
	}
	if words == "" {
		return fmt.Errorf("%s %s: %w", r.base(), verb, err)
	}
	return fmt.Errorf("%s %s: %s: %w", r.base(), verb, words, err)
}

func (r *Runtime) base() string { return r.Path[lastSlash(r.Path)+1:] }

// LogError returns the last error in a runtime's JSON log, or "". It is what
// the runtime says of a failed command; the text is bounded and of one line.
func LogError(log []byte) string {
	last := ""
	sc := bufio.NewScanner(bytes.NewReader(log))
	sc.Buffer(nil, maxLog)
	for sc.Scan() {
		var line struct{ Level, Msg string }
		if json.Unmarshal(sc.Bytes(), &line) != nil || line.Msg == "" {
			continue
		}
		if line.Level == "error" || line.Level == "fatal" || line.Level == "" {
			last = line.Msg
		}
	}
	return clean([]byte(last))
}

// clean makes one bounded line of a text that may come out of a container.
func clean(b []byte) string {
	s := strings.Map(func(c rune) rune {
		if unicode.IsSpace(c) {
			return ' '
		}
		if !unicode.IsPrint(c) {
			return -1
		}
		return c
	}, strings.TrimSpace(strings.ToValidUTF8(string(b), "")))
	if len(s) > maxWords {
		s = strings.ToValidUTF8(s[:maxWords], "") + "…"
	}
	return s
}

func firstLine(b []byte) string {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return clean(line)
}

// bounded keeps the first limit bytes written to it and drops the rest, so that
// the writer never blocks and memory is bounded. It reads straight from a pipe,
// without a copy in between.
type bounded struct {
	data  []byte
	limit int
}

func (b *bounded) Write(p []byte) (int, error) {
	b.data = append(b.data, p[:min(len(p), b.limit-len(b.data))]...)
	return len(p), nil
}

// ReadFrom is what io.Copy uses.
func (b *bounded) ReadFrom(r io.Reader) (int64, error) {
	var total int64
	var drop []byte
	for {
		if len(b.data) < b.limit && len(b.data) == cap(b.data) {
			b.data = grow(b.data, b.limit)
		}
		room := b.data[len(b.data):min(cap(b.data), b.limit)]
		full := len(room) == 0
		if full {
			if drop == nil {
				drop = make([]byte, 32<<10)
			}
			room = drop
		}
		n, err := r.Read(room)
		total += int64(n)
		if !full {
			b.data = b.data[:len(b.data)+n]
		}
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

func grow(b []byte, limit int) []byte {
	const first = 512
	bigger := make([]byte, len(b), min(max(first, 4*cap(b)), limit))
	copy(bigger, b)
	return bigger
}

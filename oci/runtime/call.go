package runtime

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
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/criserver/criserver/internal/steps"
	"golang.org/x/sys/unix"
)

// The runtime gets its input and its log as memory files, so that no call leaves a file behind.
const (
	logPath   = "/proc/self/fd/3"
	inputPath = "/proc/self/fd/4"

	maxOutput    = 1 << 20 // of a command's output, in bytes
	maxLog       = 64 << 10
	maxErrorText = 1 << 10 // of the runtime's message in an error
	logOptions   = 4
	// outputTimeout limits the wait for the end of output that a child of the runtime holds
	// open.
	outputTimeout = 5 * time.Second
)

// call runs a command of the runtime and returns its output. If ctx ends, call kills the
// runtime.
func (r *Runtime) call(ctx context.Context, input []byte, args ...string) (_ []byte, err error) {
	ctx, step := steps.Start(ctx, steps.RuntimeCall, steps.Command(args[0]))
	defer step.EndWith(&err)
	files, err := r.files(input)
	if err != nil {
		return nil, err
	}
	defer closeAll(files)
	stdout, stderr := &limitedBuffer{limit: maxOutput}, &limitedBuffer{limit: maxLog}
	cmd := r.command(ctx, files, logPath, args)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.WaitDelay = outputTimeout
	if err := cmd.Run(); err != nil {
		return nil, r.commandError(ctx, args[0], err, readLog(files[0]), stderr.data)
	}
	return stdout.data, nil
}

// command returns a command of the runtime that logs to log.
func (r *Runtime) command(ctx context.Context, files []*os.File, log string, args []string) *exec.Cmd {
	base := r.Args()
	all := make([]string, 0, len(base)+len(args)+logOptions)
	all = append(all, base[1:]...)
	all = append(all, "--log", log, "--log-format", "json")
	cmd := exec.CommandContext(ctx, base[0], append(all, args...)...)
	cmd.ExtraFiles = files
	return cmd
}

// files returns the files for the descriptors of the runtime from 3 on: its log, and the input,
// if any.
func (r *Runtime) files(input []byte) ([]*os.File, error) {
	log, err := memoryFile("log", nil)
	if err != nil || input == nil {
		return []*os.File{log}, err
	}
	in, err := memoryFile("input", input)
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return []*os.File{log, in}, nil
}

// memoryFile returns an anonymous file in memory.
func memoryFile(name string, content []byte) (*os.File, error) {
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

// commandError returns the error of a failed command. It contains the last error in the
// runtime's log, or else the runtime's standard error.
func (r *Runtime) commandError(ctx context.Context, verb string, err error, log, stderr []byte) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	message := LogError(log)
	if message == "" {
		message = sanitize(stderr)
	}
	if message == "" {
		return fmt.Errorf("%s %s: %w", r.base(), verb, err)
	}
	return fmt.Errorf("%s %s: %s: %w", r.base(), verb, message, err)
}

// base returns the name of the runtime's binary.
func (r *Runtime) base() string { return filepath.Base(r.Path) }

// LogError returns the last error in a runtime's JSON log, or "". The text has one line of
// limited length.
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
	return sanitize([]byte(last))
}

// sanitize converts a text that may come from a container to one line of limited length without
// control characters.
func sanitize(b []byte) string {
	s := strings.Map(func(c rune) rune {
		if unicode.IsSpace(c) {
			return ' '
		}
		if !unicode.IsPrint(c) {
			return -1
		}
		return c
	}, strings.TrimSpace(strings.ToValidUTF8(string(b), "")))
	if len(s) > maxErrorText {
		s = strings.ToValidUTF8(s[:maxErrorText], "") + "…"
	}
	return s
}

// firstLine returns the first line of b.
func firstLine(b []byte) string {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return sanitize(line)
}

// limitedBuffer keeps the first limit bytes that are written to it and discards the rest. So
// the writer never blocks, and memory is limited. It can read directly from a pipe, without an
// extra copy.
type limitedBuffer struct {
	data  []byte
	limit int
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	b.data = append(b.data, p[:min(len(p), b.limit-len(b.data))]...)
	return len(p), nil
}

// ReadFrom implements io.ReaderFrom for io.Copy.
func (b *limitedBuffer) ReadFrom(r io.Reader) (int64, error) {
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

// grow returns a copy of b with a larger capacity of at most limit.
func grow(b []byte, limit int) []byte {
	const first = 512
	bigger := make([]byte, len(b), min(max(first, 4*cap(b)), limit))
	copy(bigger, b)
	return bigger
}

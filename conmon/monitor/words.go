package monitor

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/criserver/criserver/conmon/wire"
)

// Bounds, in bytes, of what is kept of a runtime's output and of what is told.
const (
	maxTail  = 4096
	maxWords = 2048
)

// tail keeps the end of what is added.
type tail struct{ b []byte }

func (t *tail) add(b []byte) {
	t.b = append(t.b, b[max(0, len(b)-maxTail):]...)
	if over := len(t.b) - maxTail; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
}

func (t *tail) text() string { return strings.TrimSpace(string(t.b)) }

// runtimeWords says why the OCI runtime failed: the last error in its log, else
// what it said on its outputs, else how it ended. buf is for its log.
func runtimeWords(said, how string, buf []byte) string {
	b, err := readFile(wire.RuntimeLog, buf)
	if err == nil {
		if msg := lastError(b); msg != "" {
			return cutWords(msg)
		}
	}
	if said != "" {
		return how + ": " + cutWords(said)
	}
	return how
}

// lastError finds the last error in an OCI runtime's log of JSON lines.
func lastError(b []byte) string {
	for len(b) > 0 {
		b = bytes.TrimRight(b, "\n")
		start := bytes.LastIndexByte(b, '\n') + 1
		level, msg, err := wire.DecodeLogLine(b[start:])
		if err == nil && msg != "" && (level == "error" || level == "fatal" || level == "panic") {
			return strings.TrimSpace(msg)
		}
		b = b[:start]
	}
	return ""
}

// cutWords keeps the end of s, where runtimes say the cause.
func cutWords(s string) string {
	if len(s) <= maxWords {
		return s
	}
	s = s[len(s)-maxWords:]
	for len(s) > 0 && !utf8.RuneStart(s[0]) {
		s = s[1:]
	}
	return "…" + s
}

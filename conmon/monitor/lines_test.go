package monitor

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testLog is a log whose entries come back by the second result.
func testLog(t testing.TB) (*logFile, func() []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	out, err := newBuffer(outSize)
	if err != nil {
		t.Fatal(err)
	}
	l := new(logFile)
	if err := l.open(path, out); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	return l, func() []byte {
		l.flush()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

var testTime = time.Date(2026, 1, 2, 3, 4, 5, 60, time.FixedZone("", 3600))

const testStamp = "2026-01-02T02:04:05.000000060Z"

func TestLines(t *testing.T) {
	long := strings.Repeat("a", maxLine)
	tests := []struct {
		name  string
		reads []string
		want  []string // tag, space, content
	}{
		{"nothing", nil, nil},
		{"a line", []string{"hello\n"}, []string{"F hello"}},
		{"lines", []string{"a\nb\n\nc\n"}, []string{"F a", "F b", "F ", "F c"}},
		{"a line in pieces", []string{"he", "", "llo", "\n"}, []string{"F hello"}},
		{"the end of one, all of another, the begin of a third", []string{"a", "b\nc\nd", "e\n"}, []string{"F ab", "F c", "F de"}},
		{"no newline at the end", []string{"a\nb"}, []string{"F a", "P b"}},
		{"carriage returns stay", []string{"a\r\n"}, []string{"F a\r"}},
		{"just fits", []string{long + "\n"}, []string{"F " + long}},
		{"just fits, in pieces", []string{long, "\n"}, []string{"F " + long}},
		{"just fits, without newline", []string{long}, []string{"P " + long}},
		{"one too long", []string{long + "b\n"}, []string{"P " + long, "F b"}},
		{"one too long, in pieces", []string{long[:100], long[100:] + "b", "\n"}, []string{"P " + long, "F b"}},
		{"several too long", []string{long + long + long + "b\nc\n"}, []string{"P " + long, "P " + long, "P " + long, "F b", "F c"}},
		{"not text", []string{"\x00\xff \n"}, []string{"F \x00\xff "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			log, content := testLog(t)
			var p prefix
			var l lines
			for _, r := range tt.reads {
				p.set(stderr, testTime)
				l.cut(log, &p, []byte(r))
			}
			l.end(log, &p)
			var want strings.Builder
			for _, w := range tt.want {
				want.WriteString(testStamp + " stderr " + w + "\n")
			}
			if got := string(content()); got != want.String() {
				t.Errorf("got %.300q\nwant %.300q", got, want.String())
			}
		})
	}
}

// However the bytes arrive, the entries are the same, none is too long, and
// together they are the bytes.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nbc\n\nd"), uint16(1))
	f.Add(bytes.Repeat([]byte("x"), 3*maxLine), uint16(1000))
	f.Add(append(bytes.Repeat([]byte("x"), maxLine), "\ny\n"...), uint16(maxLine))
	log, content := testLog(f)
	cut := func(data []byte, step int) []byte {
		before := len(content())
		var p prefix
		var l lines
		p.set(stdout, testTime)
		for len(data) > 0 {
			n := min(step, len(data))
			l.cut(log, &p, data[:n])
			data = data[n:]
		}
		l.end(log, &p)
		after := content()[before:]
		_ = os.Truncate(log.path, 0)
		return after
	}
	f.Fuzz(func(t *testing.T, data []byte, step uint16) {
		whole := cut(data, max(1, len(data)))
		if pieces := cut(data, 1+int(step)); !bytes.Equal(whole, pieces) {
			t.Fatalf("in steps of %d: %q\nat once: %q", 1+int(step), pieces, whole)
		}
		var back []byte
		for e := range bytes.Lines(whole) {
			head, text := e[:prefixLen], bytes.TrimSuffix(e[prefixLen:], []byte("\n"))
			if len(text) > maxLine || string(head[:prefixTag]) != testStamp+" stdout " {
				t.Fatalf("entry %q", e)
			}
			if back = append(back, text...); head[prefixTag] == full {
				back = append(back, '\n')
			}
		}
		if !bytes.Equal(back, data) {
			t.Fatalf("got back %q of %q", back, data)
		}
	})
}

func BenchmarkLines(b *testing.B) {
	data := bytes.Repeat(append(bytes.Repeat([]byte("x"), 99), '\n'), readSize/100)
	out, err := newBuffer(outSize)
	if err != nil {
		b.Fatal(err)
	}
	log := &logFile{fd: -1, out: out}
	b.SetBytes(int64(len(data)))
	var l lines
	for b.Loop() {
		var p prefix
		p.set(stdout, testTime)
		l.cut(log, &p, data)
		log.flush()
	}
}

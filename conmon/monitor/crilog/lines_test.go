package crilog

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/criserver/criserver/conmon/monitor/sys"
)

// testLog returns a log that keeps its entries in memory: see takeEntries.
func testLog() *File { return &File{fd: -1, out: make(sys.Buffer, 4<<20)} }

// takeEntries returns the entries and removes them from the log.
func takeEntries(l *File) []byte {
	b := bytes.Clone(l.out[:l.n])
	l.n = 0
	return b
}

var testTime = time.Date(2026, 1, 2, 3, 4, 5, 60, time.FixedZone("", 3600))

const testStamp = "2026-01-02T02:04:05.000000060Z"

func TestLines(t *testing.T) {
	long := strings.Repeat("a", MaxLine)
	tests := []struct {
		name  string
		reads []string
		want  []string // tag, space, content
	}{
		{"no input", nil, nil},
		{"a line", []string{"hello\n"}, []string{"F hello"}},
		{"lines", []string{"a\nb\n\nc\n"}, []string{"F a", "F b", "F ", "F c"}},
		{"a line in pieces", []string{"he", "", "llo", "\n"}, []string{"F hello"}},
		{"reads that do not end at line ends", []string{"a", "b\nc\nd", "e\n"}, []string{"F ab", "F c", "F de"}},
		{"no newline at the end", []string{"a\nb"}, []string{"F a", "P b"}},
		{"carriage returns stay", []string{"a\r\n"}, []string{"F a\r"}},
		{"maximum length", []string{long + "\n"}, []string{"F " + long}},
		{"maximum length, in pieces", []string{long, "\n"}, []string{"F " + long}},
		{"maximum length, without newline", []string{long}, []string{"P " + long}},
		{"one byte too long", []string{long + "b\n"}, []string{"P " + long, "F b"}},
		{"one byte too long, in pieces", []string{long[:100], long[100:] + "b", "\n"}, []string{"P " + long, "F b"}},
		{"several entries", []string{long + long + long + "b\nc\n"}, []string{"P " + long, "P " + long, "P " + long, "F b", "F c"}},
		{"binary data", []string{"\x00\xff \n"}, []string{"F \x00\xff "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			log := testLog()
			var p Prefix
			var l Lines
			for _, r := range tt.reads {
				p.Fill(Stderr, testTime)
				l.Split(log, &p, testTime, []byte(r))
			}
			l.Flush(log, &p)
			var want strings.Builder
			for _, w := range tt.want {
				want.WriteString(testStamp + " stderr " + w + "\n")
			}
			if got := string(takeEntries(log)); got != want.String() {
				t.Errorf("got %.300q\nwant %.300q", got, want.String())
			}
		})
	}
}

// FuzzLines checks that the entries do not depend on the sizes of the reads, that no entry is too
// long, and that the entries together contain all bytes.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nbc\n\nd"), uint16(1))
	f.Add([]byte("\xff\xff\xff\n"), uint16(1000))
	f.Add([]byte("\xbf\ny\n"), uint16(MaxLine))
	log := testLog()
	split := func(data []byte, step int) []byte {
		var p Prefix
		var l Lines
		p.Fill(Stdout, testTime)
		for len(data) > 0 {
			n := min(step, len(data))
			l.Split(log, &p, testTime, data[:n])
			data = data[n:]
		}
		l.Flush(log, &p)
		return takeEntries(log)
	}
	f.Fuzz(func(t *testing.T, seed []byte, step uint16) {
		data := expand(seed)
		once := split(data, max(1, len(data)))
		if pieces := split(data, 1+int(step)); !bytes.Equal(once, pieces) {
			t.Fatalf("in reads of %d bytes: %q\nin one read: %q", 1+int(step), pieces, once)
		}
		var back []byte
		for e := range bytes.Lines(once) {
			head, text := e[:prefixLen], bytes.TrimSuffix(e[prefixLen:], []byte("\n"))
			if len(text) > MaxLine || string(head[:prefixTag]) != testStamp+" stdout " {
				t.Fatalf("entry %q", e)
			}
			if back = append(back, text...); head[prefixTag] == tagFull {
				back = append(back, '\n')
			}
		}
		if !bytes.Equal(back, data) {
			t.Fatalf("entries contain %q, want %q", back, data)
		}
	})
}

// expand makes long lines from short inputs: a byte above 0x7f stands for 256 to 32768 bytes.
// The entries of the result fit the buffer of testLog.
func expand(seed []byte) (data []byte) {
	for _, c := range seed {
		run := []byte{c}
		if c >= 0x80 {
			run = bytes.Repeat([]byte("x"), (int(c)-0x7f)*256)
		}
		if len(data)+len(run) > 64<<10 {
			break
		}
		data = append(data, run...)
	}
	return data
}

func BenchmarkLines(b *testing.B) {
	data := bytes.Repeat(append(bytes.Repeat([]byte("x"), 99), '\n'), (256<<10)/100)
	out, err := sys.NewBuffer(BufferSize)
	if err != nil {
		b.Fatal(err)
	}
	log := &File{fd: -1, out: out}
	b.SetBytes(int64(len(data)))
	var l Lines
	for b.Loop() {
		var p Prefix
		p.Fill(Stdout, testTime)
		l.Split(log, &p, testTime, data)
		log.Flush()
	}
}

// FuzzOverdueLines checks that the entries together contain all bytes, whatever the times of the
// reads and of the flushes of overdue lines, and that an entry has the tag F if and only if its
// line ends there.
func FuzzOverdueLines(f *testing.F) {
	f.Add([]byte("prompt: answer\nnext"), []byte{8, 255, 0, 3})
	f.Add([]byte("\xff\xff\n\n\xbf"), []byte{0, 250, 251, 1, 0})
	f.Add([]byte("a\n"), []byte{1, 255, 1})
	log := testLog()
	f.Fuzz(func(t *testing.T, seed, schedule []byte) {
		data, rest := expand(seed), []byte(nil)
		var l Lines
		now := testTime
		for rest = data; len(rest) > 0; {
			// Each byte of the schedule is the size of a read and the milliseconds after the read.
			step := byte(255)
			if len(schedule) > 0 {
				step, schedule = schedule[0], schedule[1:]
			}
			n := min(int(step)*97, len(rest))
			var p Prefix
			p.Fill(Stdout, now)
			l.Split(log, &p, now, rest[:n])
			rest = rest[n:]
			if now = now.Add(time.Duration(step) * 2 * time.Millisecond); l.Overdue(now) {
				l.Flush(log, &p)
				if len(l.pending) > 0 {
					t.Fatal("an overdue line is still pending")
				}
			}
			if step == 0 && len(schedule) == 0 {
				schedule = []byte{255}
			}
		}
		var p Prefix
		p.Fill(Stdout, now)
		l.Flush(log, &p)
		if got := joinEntries(t, takeEntries(log)); !bytes.Equal(got, data) {
			t.Fatalf("entries contain %q, want %q", got, data)
		}
	})
}

// joinEntries returns the text of entries as a reader of the log joins them.
func joinEntries(t *testing.T, entries []byte) (text []byte) {
	t.Helper()
	for e := range bytes.Lines(entries) {
		content := bytes.TrimSuffix(e[prefixLen:], []byte("\n"))
		if len(content) > MaxLine {
			t.Fatalf("entry of %d bytes, want at most %d", len(content), MaxLine)
		}
		if text = append(text, content...); e[prefixTag] == tagFull {
			text = append(text, '\n')
		}
	}
	return text
}

// TestOverdueLine checks that the time of a line counts from its first byte, and begins again
// with the next line.
func TestOverdueLine(t *testing.T) {
	log := testLog()
	var l Lines
	read := func(after time.Duration, text string) {
		var p Prefix
		p.Fill(Stdout, testTime)
		l.Split(log, &p, testTime.Add(after), []byte(text))
	}
	read(0, "a")
	read(LineDelay-1, "b")
	if l.Overdue(testTime.Add(LineDelay - 1)) {
		t.Error("the line is overdue too early")
	}
	if !l.Overdue(testTime.Add(LineDelay)) {
		t.Error("the line is not overdue LineDelay after its first byte")
	}
	read(LineDelay, "\nc")
	if l.Overdue(testTime.Add(2*LineDelay - 1)) {
		t.Error("the next line is overdue LineDelay after the first byte of the previous line")
	}
	read(2*LineDelay, "d\n")
	if l.Overdue(testTime.Add(10 * LineDelay)) {
		t.Error("a complete line is overdue")
	}
}

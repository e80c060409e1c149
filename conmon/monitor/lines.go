package monitor

import (
	"bytes"
	"time"
)

// maxLine is how many bytes of a line one log entry carries at most, as with
// other runtimes. Of a longer line every entry but the last has the tag P.
const maxLine = 16 << 10

// The CRI log format: "<time> <stream> <tag> <content>\n". Times are UTC with
// all nine digits of the second and both streams' names have six letters, so
// all prefixes have the same length.
const (
	prefixLen = len("2006-01-02T15:04:05.000000000Z stdout F ")
	prefixTag = prefixLen - 2
	maxEntry  = prefixLen + maxLine + 1
)

// The tags: the end of a line, or a part of one that more follows.
const (
	full    = 'F'
	partial = 'P'
)

type prefix [prefixLen]byte

// set fills the prefix in for entries of that stream and time.
func (p *prefix) set(stream string, t time.Time) {
	t = t.UTC()
	t.AppendFormat(p[:0], "2006-01-02T15:04:05.000000000Z")
	p[30] = ' '
	copy(p[31:], stream)
	p[37] = ' '
	p[prefixTag] = full
	p[39] = ' '
}

// lines cuts one stream into log entries. An unfinished line is held back until
// it ends or fills an entry, so how the entries fall does not depend on how the
// reads did, and what the two streams write does not mix within a line.
type lines struct {
	held []byte // at most maxLine
}

// cut makes entries of data. They all get the same prefix, and with it one time:
// that of the read that brought them.
func (l *lines) cut(dst *logFile, p *prefix, data []byte) {
	if len(l.held) > 0 {
		data = l.finish(dst, p, data)
	}
	for len(data) > 0 {
		n := bytes.IndexByte(data[:min(len(data), maxLine+1)], '\n')
		if n < 0 {
			if len(data) <= maxLine {
				l.hold(data)
				return
			}
			p.entry(dst, partial, nil, data[:maxLine])
			data = data[maxLine:]
			continue
		}
		// The common case, with the newline copied along.
		b := dst.room(prefixLen + n + 1)
		*(*prefix)(b) = *p
		copy(b[prefixLen:], data[:n+1])
		data = data[n+1:]
	}
}

// finish joins data to the line that is held back and returns what is left.
func (l *lines) finish(dst *logFile, p *prefix, data []byte) []byte {
	free := maxLine - len(l.held)
	n := bytes.IndexByte(data[:min(len(data), free+1)], '\n')
	switch {
	case n >= 0:
		p.entry(dst, full, l.held, data[:n])
		n++
	case len(data) <= free:
		l.hold(data)
		return nil
	default:
		n = free
		p.entry(dst, partial, l.held, data[:n])
	}
	l.held = l.held[:0]
	return data[n:]
}

func (l *lines) hold(data []byte) {
	if l.held == nil {
		l.held = make([]byte, 0, maxLine)
	}
	l.held = append(l.held, data...)
}

// end makes an entry of an unfinished line when its stream has ended. Its tag is
// P: readers put a newline where an F is, and there was none.
func (l *lines) end(dst *logFile, p *prefix) {
	if len(l.held) > 0 {
		p.entry(dst, partial, l.held, nil)
		l.held = l.held[:0]
	}
}

// entry makes one of two pieces.
func (p *prefix) entry(dst *logFile, tag byte, a, b []byte) {
	e := dst.room(prefixLen + len(a) + len(b) + 1)
	*(*prefix)(e) = *p
	e[prefixTag] = tag
	n := prefixLen + copy(e[prefixLen:], a)
	n += copy(e[n:], b)
	e[n] = '\n'
}

package crilog

import (
	"bytes"
	"time"
)

// MaxLine is the maximum content of one log entry in bytes, the same as in other runtimes. A
// longer line becomes several entries, which have the tag P except for the last.
const MaxLine = 16 << 10

// The CRI log format is "<time> <stream> <tag> <content>\n". Times are in UTC with nine
// decimals, and the names of both streams have six letters. So all prefixes have the same
// length.
const (
	prefixLen = len("2006-01-02T15:04:05.000000000Z stdout F ")
	prefixTag = prefixLen - 2
	maxEntry  = prefixLen + MaxLine + 1
)

// The tags say whether an entry ends its line.
const (
	tagFull    = 'F'
	tagPartial = 'P'
)

// Prefix is the part of a log entry before the content.
type Prefix [prefixLen]byte

// Fill sets the prefix for entries of that stream and time.
func (p *Prefix) Fill(stream string, t time.Time) {
	t = t.UTC()
	t.AppendFormat(p[:0], "2006-01-02T15:04:05.000000000Z")
	p[30] = ' '
	copy(p[31:], stream)
	p[37] = ' '
	p[prefixTag] = tagFull
	p[39] = ' '
}

// LineDelay is how long an unfinished line waits for its end. Then it is written, so that readers
// of the log see a prompt or a progress bar. The rest of the line becomes another entry, and
// readers join both. The time counts from the first byte, not from the last one: a program that
// writes a dot each tenth of a second shows progress, and no program causes more than four such
// entries per second.
const LineDelay = 250 * time.Millisecond

// Lines splits one stream into log entries. It keeps an unfinished line until the line ends,
// fills an entry or is overdue. So the entries do not depend on the sizes of the reads, and the
// lines of the two streams do not mix.
type Lines struct {
	pending []byte    // the unfinished line, at most MaxLine
	since   time.Time // the time of the read that returned the first byte of pending
}

// Split adds data, which was read at the time now, to the log as entries. All entries get the
// same prefix.
func (l *Lines) Split(dst *File, p *Prefix, now time.Time, data []byte) {
	if len(l.pending) > 0 {
		data = l.completeLine(dst, p, data)
	}
	for len(data) > 0 {
		n := bytes.IndexByte(data[:min(len(data), MaxLine+1)], '\n')
		if n < 0 {
			if len(data) <= MaxLine {
				l.since = now
				l.keep(data)
				return
			}
			p.writeEntry(dst, tagPartial, nil, data[:MaxLine])
			data = data[MaxLine:]
			continue
		}
		// The common case; the newline is copied with the content.
		b := dst.reserve(prefixLen + n + 1)
		*(*Prefix)(b) = *p
		copy(b[prefixLen:], data[:n+1])
		data = data[n+1:]
	}
}

// completeLine appends data to the unfinished line, and returns the data after the end of that
// line.
func (l *Lines) completeLine(dst *File, p *Prefix, data []byte) []byte {
	free := MaxLine - len(l.pending)
	n := bytes.IndexByte(data[:min(len(data), free+1)], '\n')
	switch {
	case n >= 0:
		p.writeEntry(dst, tagFull, l.pending, data[:n])
		n++
	case len(data) <= free:
		l.keep(data)
		return nil
	default:
		n = free
		p.writeEntry(dst, tagPartial, l.pending, data[:n])
	}
	l.pending = l.pending[:0]
	return data[n:]
}

// keep stores the unfinished line.
func (l *Lines) keep(data []byte) {
	if l.pending == nil {
		l.pending = make([]byte, 0, MaxLine)
	}
	l.pending = append(l.pending, data...)
}

// Overdue reports whether the unfinished line has waited for its end for LineDelay.
func (l *Lines) Overdue(now time.Time) bool {
	return len(l.pending) > 0 && now.Sub(l.since) >= LineDelay
}

// Pending returns the size of the unfinished line in bytes, or 0.
func (l *Lines) Pending() int { return len(l.pending) }

// Deadline returns when the unfinished line is overdue.
func (l *Lines) Deadline() time.Time { return l.since.Add(LineDelay) }

// Flush writes the unfinished line when its stream has ended or the line is overdue. The tag is
// P, because readers add a newline after an entry with the tag F, and the container has written
// none.
func (l *Lines) Flush(dst *File, p *Prefix) {
	if len(l.pending) > 0 {
		p.writeEntry(dst, tagPartial, l.pending, nil)
		l.pending = l.pending[:0]
	}
}

// writeEntry writes an entry whose content consists of two parts.
func (p *Prefix) writeEntry(dst *File, tag byte, a, b []byte) {
	e := dst.reserve(prefixLen + len(a) + len(b) + 1)
	*(*Prefix)(e) = *p
	e[prefixTag] = tag
	n := prefixLen + copy(e[prefixLen:], a)
	n += copy(e[n:], b)
	e[n] = '\n'
}

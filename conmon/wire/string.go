package wire

import (
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

func (r *reader) str() string {
	if r.want('"'); r.bad {
		return ""
	}
	for n, c := range r.b {
		switch {
		case c == '"': // the common case: nothing to undo
			if !utf8.Valid(r.b[:n]) {
				return r.slowStr()
			}
			s := unsafe.String(unsafe.SliceData(r.b), n)
			r.b = r.b[n+1:]
			return s
		case c == '\\':
			return r.slowStr()
		case c < ' ':
			r.fail()
			return ""
		}
	}
	r.fail()
	return ""
}

func (r *reader) slowStr() string {
	var out []byte
	for len(r.b) > 0 {
		c, size := utf8.DecodeRune(r.b)
		r.b = r.b[size:]
		switch {
		case c == '"':
			return string(out)
		case c == '\\':
			out = r.escape(out)
		case c < ' ':
			r.fail()
		default:
			out = utf8.AppendRune(out, c)
		}
	}
	r.fail()
	return ""
}

// escape undoes one escape, of which the backslash is taken.
func (r *reader) escape(out []byte) []byte {
	if len(r.b) == 0 {
		r.fail()
		return out
	}
	c := r.b[0]
	r.b = r.b[1:]
	switch c {
	case '"', '\\', '/':
		return append(out, c)
	case 'b':
		return append(out, '\b')
	case 'f':
		return append(out, '\f')
	case 'n':
		return append(out, '\n')
	case 'r':
		return append(out, '\r')
	case 't':
		return append(out, '\t')
	case 'u':
		return utf8.AppendRune(out, r.escapedRune())
	}
	r.fail()
	return out
}

// escapedRune takes four hexadecimal digits, and the second half of a surrogate
// pair when one follows.
func (r *reader) escapedRune() rune {
	c := r.hex4()
	if !utf16.IsSurrogate(c) || len(r.b) < 6 || r.b[0] != '\\' || r.b[1] != 'u' {
		return c // AppendRune makes U+FFFD of half a pair
	}
	rest := r.b
	r.b = r.b[2:]
	if both := utf16.DecodeRune(c, r.hex4()); both != utf8.RuneError {
		return both
	}
	if !r.bad {
		r.b = rest
	}
	return c
}

func (r *reader) hex4() rune {
	if len(r.b) < 4 {
		r.fail()
		return 0
	}
	var v rune
	for _, c := range r.b[:4] {
		switch {
		case c >= '0' && c <= '9':
			v = v<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			v = v<<4 | rune(c|0x20-'a'+10)
		default:
			r.fail()
			return 0
		}
	}
	r.b = r.b[4:]
	return v
}

package wire

import (
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// string parses a string.
func (r *reader) string() string {
	if r.expect('"'); r.failed {
		return ""
	}
	for n, c := range r.b {
		switch {
		case c == '"': // the common case: no escapes
			if !utf8.Valid(r.b[:n]) {
				return r.decodeString()
			}
			s := unsafe.String(unsafe.SliceData(r.b), n)
			r.b = r.b[n+1:]
			return s
		case c == '\\':
			return r.decodeString()
		case c < ' ':
			r.fail()
			return ""
		}
	}
	r.fail()
	return ""
}

// decodeString parses the rest of a string that contains escapes or invalid UTF-8.
func (r *reader) decodeString() string {
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

// escape decodes one escape sequence. The backslash was already consumed.
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

// escapedRune decodes four hexadecimal digits, and the second half of a surrogate pair if there
// is one.
func (r *reader) escapedRune() rune {
	c := r.fourHexDigits()
	if !utf16.IsSurrogate(c) || len(r.b) < 6 || r.b[0] != '\\' || r.b[1] != 'u' {
		return c // AppendRune turns half a pair into U+FFFD
	}
	rest := r.b
	r.b = r.b[2:]
	if both := utf16.DecodeRune(c, r.fourHexDigits()); both != utf8.RuneError {
		return both
	}
	if !r.failed {
		r.b = rest
	}
	return c
}

// fourHexDigits parses the digits of a \\u escape.
func (r *reader) fourHexDigits() rune {
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

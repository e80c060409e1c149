package wire

import (
	"errors"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

var errJSON = errors.New("malformed JSON")

// reader is a pull parser of JSON. Strings without escapes share the memory of
// what is read, so reading makes no garbage. After the first error, which bad keeps, it
// stands at the end of its input and returns zero values.
type reader struct {
	b     []byte
	bad   bool
	depth int
}

// maxDepth bounds the nesting of what is passed over.
const maxDepth = 32

func (r *reader) fail() {
	r.bad = true
	r.b = nil
}

// end says whether the input was one whole value and nothing more.
func (r *reader) end() error {
	if r.space(); r.bad || len(r.b) > 0 {
		return errJSON
	}
	return nil
}

func (r *reader) space() {
	for len(r.b) > 0 && (r.b[0] == ' ' || r.b[0] == '\n' || r.b[0] == '\t' || r.b[0] == '\r') {
		r.b = r.b[1:]
	}
}

// next returns the next byte that is no white space without taking it, 0 at
// the end.
func (r *reader) next() byte {
	if r.space(); len(r.b) == 0 {
		return 0
	}
	return r.b[0]
}

// take takes the next byte if it is c.
func (r *reader) take(c byte) bool {
	if r.next() != c || len(r.b) == 0 {
		return false
	}
	r.b = r.b[1:]
	return true
}

func (r *reader) want(c byte) {
	if !r.take(c) {
		r.fail()
	}
}

func (r *reader) word(w string) bool {
	r.space()
	if len(r.b) < len(w) || string(r.b[:len(w)]) != w {
		return false
	}
	r.b = r.b[len(w):]
	return true
}

// object calls field for each member; field takes the value.
func (r *reader) object(field func(key string)) {
	r.list('{', '}', func() {
		key := r.str()
		r.want(':')
		field(key)
	})
}

func (r *reader) list(open, shut byte, item func()) {
	if r.want(open); r.depth == maxDepth {
		r.fail()
	}
	if r.bad || r.take(shut) {
		return
	}
	r.depth++
	for !r.bad {
		item()
		if !r.take(',') {
			r.want(shut)
			break
		}
	}
	r.depth--
}

func (r *reader) strs() (out []string) {
	if r.word("null") {
		return nil
	}
	// Not grown in steps: each size of block that is new to a Go heap costs the
	// monitor two pages.
	out = make([]string, 0, 32)
	r.list('[', ']', func() { out = append(out, r.str()) })
	return out
}

func (r *reader) boolean() bool {
	if r.word("true") {
		return true
	}
	if !r.word("false") {
		r.fail()
	}
	return false
}

func (r *reader) integer() int64 {
	v, err := strconv.ParseInt(r.number(), 10, 64)
	if err != nil {
		r.fail()
	}
	return v
}

func (r *reader) uint16() uint16 {
	v := r.integer()
	if v < 0 || v > 1<<16-1 {
		r.fail()
		return 0
	}
	return uint16(v)
}

// number takes what looks like one; only integer cares whether it is.
func (r *reader) number() string {
	r.space()
	n := 0
	for n < len(r.b) && (r.b[n] >= '0' && r.b[n] <= '9' || r.b[n] == '-' || r.b[n] == '+' || r.b[n] == '.' || r.b[n]|0x20 == 'e') {
		n++
	}
	if n == 0 {
		r.fail()
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *reader) skip() {
	switch c := r.next(); {
	case c == '"':
		r.str()
	case c == '{':
		r.object(func(string) { r.skip() })
	case c == '[':
		r.list('[', ']', r.skip)
	case c == 't' || c == 'f':
		r.boolean()
	case c == 'n':
		if !r.word("null") {
			r.fail()
		}
	default:
		r.number()
	}
}

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

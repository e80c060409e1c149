package wire

import (
	"errors"
	"strconv"
)

var errJSON = errors.New("malformed JSON")

// reader is a pull parser of JSON. Strings without escapes share the memory of the input, so
// parsing allocates little. After an error, the reader is at the end of its input and returns
// zero values.
type reader struct {
	b      []byte
	failed bool
	depth  int
}

// maxDepth is the maximum nesting depth of values.
const maxDepth = 32

// fail records an error.
func (r *reader) fail() {
	r.failed = true
	r.b = nil
}

// finish returns an error unless the input was exactly one valid value.
func (r *reader) finish() error {
	if r.space(); r.failed || len(r.b) > 0 {
		return errJSON
	}
	return nil
}

func (r *reader) space() {
	for len(r.b) > 0 && (r.b[0] == ' ' || r.b[0] == '\n' || r.b[0] == '\t' || r.b[0] == '\r') {
		r.b = r.b[1:]
	}
}

// peek returns the next byte that is not white space, or 0 at the end. It does not consume the
// byte.
func (r *reader) peek() byte {
	if r.space(); len(r.b) == 0 {
		return 0
	}
	return r.b[0]
}

// accept consumes the next byte if the byte is c.
func (r *reader) accept(c byte) bool {
	if r.peek() != c || len(r.b) == 0 {
		return false
	}
	r.b = r.b[1:]
	return true
}

// expect consumes the next byte, which must be c.
func (r *reader) expect(c byte) {
	if !r.accept(c) {
		r.fail()
	}
}

// literal consumes w if the input continues with w.
func (r *reader) literal(w string) bool {
	r.space()
	if len(r.b) < len(w) || string(r.b[:len(w)]) != w {
		return false
	}
	r.b = r.b[len(w):]
	return true
}

// object parses an object and calls field for each member. field must parse the value.
func (r *reader) object(field func(key string)) {
	r.list('{', '}', func() {
		key := r.string()
		r.expect(':')
		field(key)
	})
}

// list parses items, separated by commas, between opening and closing.
func (r *reader) list(opening, closing byte, item func()) {
	if r.expect(opening); r.depth == maxDepth {
		r.fail()
	}
	if r.failed || r.accept(closing) {
		return
	}
	r.depth++
	for !r.failed {
		item()
		if !r.accept(',') {
			r.expect(closing)
			break
		}
	}
	r.depth--
}

func (r *reader) stringList() (out []string) {
	if r.literal("null") {
		return nil
	}
	// The slice must not grow in steps, because each new block size costs the Go heap of the
	// monitor two pages.
	out = make([]string, 0, 32)
	r.list('[', ']', func() { out = append(out, r.string()) })
	return out
}

func (r *reader) boolean() bool {
	if r.literal("true") {
		return true
	}
	if !r.literal("false") {
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

// number consumes characters that occur in numbers. Only integer checks the syntax.
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

// skip parses a value of any type and ignores it.
func (r *reader) skip() {
	switch c := r.peek(); {
	case c == '"':
		r.string()
	case c == '{':
		r.object(func(string) { r.skip() })
	case c == '[':
		r.list('[', ']', r.skip)
	case c == 't' || c == 'f':
		r.boolean()
	case c == 'n':
		if !r.literal("null") {
			r.fail()
		}
	default:
		r.number()
	}
}

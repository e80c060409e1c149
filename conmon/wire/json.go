package wire

import (
	"errors"
	"strconv"
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

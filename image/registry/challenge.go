package registry

import "strings"

// Schemes of authentication.
const (
	basic  = "basic"
	bearer = "bearer"
)

// challenge is one challenge of a WWW-Authenticate header.
type challenge struct {
	scheme string // in lower case
	params map[string]string
}

// chooseChallenge returns the first challenge whose scheme is supported, or nil.
func chooseChallenge(headers []string) *challenge {
	for _, header := range headers {
		for _, ch := range parseChallenges(header) {
			if ch.scheme == basic || ch.scheme == bearer && ch.params["realm"] != "" {
				return &ch
			}
		}
	}
	return nil
}

// parseChallenges parses a WWW-Authenticate header as RFC 9110, section 11.6.1, defines it:
// commas separate challenges, and also the parameters of a challenge. Parsing stops at the
// first syntax error.
func parseChallenges(header string) []challenge {
	var all []challenge
	rest := header
	for {
		rest = strings.TrimLeft(rest, " \t,")
		word, after := cutToken(rest)
		if word == "" {
			return all
		}
		value, afterValue, isParam := cutValue(after)
		switch {
		case !isParam:
			all = append(all, challenge{strings.ToLower(word), make(map[string]string)})
			rest = after
		case len(all) == 0:
			return nil
		default:
			all[len(all)-1].params[strings.ToLower(word)] = value
			rest = afterValue
		}
	}
}

// cutToken returns the token at the beginning of s, or "", and the text after the token.
func cutToken(s string) (token, rest string) {
	i := strings.IndexFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r)
	})
	if i < 0 {
		i = len(s)
	}
	return s[:i], s[i:]
}

// cutValue returns the value of a parameter, a token or a quoted string, and the text after the
// value. ok is false if s does not begin with "=".
func cutValue(s string) (value, rest string, ok bool) {
	s, ok = strings.CutPrefix(strings.TrimLeft(s, " \t"), "=")
	if !ok {
		return "", s, false
	}
	s = strings.TrimLeft(s, " \t")
	if !strings.HasPrefix(s, `"`) {
		value, rest = cutToken(s)
		return value, rest, true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", true
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", true
}

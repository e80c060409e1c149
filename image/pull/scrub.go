package pull

import (
	"regexp"
	"strings"
)

// maxText bounds, in bytes, the text of an error, which can quote what a
// registry has answered.
const maxText = 2 << 10

// secretParts are the parts of a URL that can be a credential: what stands
// before the host, and the query, by which object stores that registries
// redirect to sign their addresses.
var (
	urlUser  = regexp.MustCompile(`(\w://)[^/@\s"]+@`)
	urlQuery = regexp.MustCompile(`(\w://[^\s?"]+\?)[^\s"]+`)
)

// scrubbed is an error without secret parts of URLs in its text, which goes to
// the log and to everyone who can see a pod's events. A long text keeps its
// first part, for the kubelet, and its last, for the cause.
type scrubbed struct{ err error }

func (s scrubbed) Error() string {
	text := urlUser.ReplaceAllString(s.err.Error(), "${1}…@")
	text = urlQuery.ReplaceAllString(text, "${1}…")
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText/2], "") + " … " + strings.ToValidUTF8(text[len(text)-maxText/2:], "")
}

func (s scrubbed) Unwrap() error { return s.err }

func scrub(err error) error {
	if err == nil {
		return nil
	}
	return scrubbed{err}
}

package pull

import "regexp"

// secretParts are the parts of a URL that can be a credential: what stands
// before the host, and the query, by which object stores that registries
// redirect to sign their addresses.
var (
	urlUser  = regexp.MustCompile(`(\w://)[^/@\s"]+@`)
	urlQuery = regexp.MustCompile(`(\w://[^\s?"]+\?)[^\s"]+`)
)

// scrubbed is an error without secret parts of URLs in its text, which goes to
// the log and to everyone who can see a pod's events.
type scrubbed struct{ err error }

func (s scrubbed) Error() string {
	text := urlUser.ReplaceAllString(s.err.Error(), "${1}…@")
	return urlQuery.ReplaceAllString(text, "${1}…")
}

func (s scrubbed) Unwrap() error { return s.err }

func scrub(err error) error {
	if err == nil {
		return nil
	}
	return scrubbed{err}
}

package registry

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// StatusError is a response with a status that is not a success.
type StatusError struct {
	Code    int
	URL     string // without the query, which can be a credential
	Message string // of the server, cut; or ""
	// After is the pause that the server asks for with Retry-After, or 0.
	After time.Duration
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("%s answers %d %s", e.URL, e.Code, http.StatusText(e.Code))
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}

const (
	// maxErrorBody bounds what is read of an error, and maxMessage what is shown.
	maxErrorBody = 16 << 10
	maxMessage   = 512
)

// newStatusError makes an error of a response. It reads the message in the body.
func newStatusError(res *http.Response) *StatusError {
	u := *res.Request.URL
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	b, _ := io.ReadAll(io.LimitReader(res.Body, maxErrorBody)) // what came of it is good enough
	return &StatusError{Code: res.StatusCode, URL: u.String(), Message: message(res, b), After: retryAfter(res.Header, time.Now())}
}

// message returns the text in the body of an error. The protocol has JSON with a list of
// errors. Other bodies are shown if they are short and not HTML.
func message(res *http.Response, b []byte) string {
	var body struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
		Details string `json:"details"` // of token servers
	}
	var parts []string
	if json.Unmarshal(b, &body) == nil {
		for _, e := range body.Errors {
			parts = append(parts, strings.Trim(strings.ToLower(e.Code)+": "+e.Message, ": "))
		}
		if len(parts) == 0 && body.Details != "" {
			parts = append(parts, body.Details)
		}
	} else if !isJSON(res) && !strings.Contains(string(b), "<") {
		parts = append(parts, strings.TrimSpace(string(b)))
	}
	text := strings.ToValidUTF8(strings.Join(parts, "; "), "")
	text = strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, text)
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "…"
	}
	return text
}

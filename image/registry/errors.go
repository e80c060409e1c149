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
	URL     string // without user, query and fragment, which can be credentials
	Message string // from the server, shortened; or ""
	// RetryAfter is the pause that the server asks for, or 0.
	RetryAfter time.Duration
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("%s: status %d %s", e.URL, e.Code, http.StatusText(e.Code))
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}

const (
	maxErrorBody = 16 << 10 // bytes that are read of the body of an error
	maxMessage   = 512      // bytes of StatusError.Message
)

// newStatusError returns the error of a response. It reads the message in the body.
func newStatusError(res *http.Response) *StatusError {
	u := *res.Request.URL
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	b, _ := io.ReadAll(io.LimitReader(res.Body, maxErrorBody)) // an incomplete body is used as it is
	return &StatusError{
		Code: res.StatusCode, URL: u.String(), Message: message(res, b), RetryAfter: retryAfter(res.Header, time.Now()),
	}
}

// message returns the text in the body of an error. The protocol defines JSON with a list of
// errors. Other bodies are returned as they are, unless they are HTML.
func message(res *http.Response, b []byte) string {
	var body struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
		Details string `json:"details"` // sent by token servers
	}
	var parts []string
	if json.Unmarshal(b, &body) == nil {
		for _, e := range body.Errors {
			parts = append(parts, strings.Trim(strings.ToLower(e.Code)+": "+e.Message, ": "))
		}
		if len(parts) == 0 && body.Details != "" {
			parts = append(parts, body.Details)
		}
	} else if !strings.Contains(res.Header.Get("Content-Type"), "json") && !strings.Contains(string(b), "<") {
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

package registry

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// firstWait is the pause before the second attempt; each next one is twice as
	// long.
	firstWait = time.Second
	// maxWait bounds the pause that a server can ask for. If a server asks for more, the
	// request fails, and the kubelet repeats the pull later.
	maxWait = 30 * time.Second
)

// retry calls fn until fn succeeds, returns an error that is not worth repeating, or has
// used all attempts. An image takes dozens of requests, and servers that are overloaded or
// being replaced answer some requests with an error.
func (c *Client) retry(ctx context.Context, fn func() error) error {
	for attempt := 1; ; attempt++ {
		err := fn()
		if err == nil || attempt >= c.cfg.Attempts {
			return err
		}
		if err := c.pause(ctx, err, attempt); err != nil {
			return err
		}
	}
}

// pause waits before the attempt after this one. It returns err if no other
// attempt should be made.
func (c *Client) pause(ctx context.Context, err error, attempt int) error {
	after, again := worthRepeating(err)
	if !again || after > maxWait {
		return err
	}
	wait := max(after, firstWait<<(attempt-1))
	return c.sleep(ctx, wait+rand.N(wait/10), err)
}

// sleep waits and calls Moved meanwhile. It returns err if ctx ends first.
func (c *Client) sleep(ctx context.Context, d time.Duration, err error) error {
	end := time.NewTimer(d)
	defer end.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-end.C:
			return nil
		case <-tick.C:
			c.cfg.Moved()
		case <-ctx.Done():
			return err
		}
	}
}

// worthRepeating reports whether a failed request may succeed when it is repeated, and the
// pause that the server asks for.
func worthRepeating(err error) (after time.Duration, again bool) {
	var (
		status  *StatusError
		network net.Error
	)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return 0, false
	case errors.As(err, &status):
		return status.After, retryable(status.Code)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return 0, true
	case errors.As(err, &network):
		return 0, network.Timeout()
	}
	return 0, false
}

// retryable reports whether a status can be temporary.
func retryable(code int) bool {
	switch code {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	// Proxies and content networks have codes of their own there.
	return code >= 520 && code < 600
}

// retryAfter reads the header of this name, which has seconds or a date.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	if n, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

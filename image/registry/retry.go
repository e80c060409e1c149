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
	// firstPause is the pause before the second attempt. Each further pause is twice as long.
	firstPause = time.Second
	// maxRetryAfter is the longest pause that a server can ask for. If a server asks for more,
	// the request fails, and the kubelet repeats the pull later.
	maxRetryAfter = 30 * time.Second
)

// retry calls fn until fn succeeds, fails with an error that is not temporary, or has used all
// attempts. An image takes dozens of requests, and servers that are overloaded or
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

// pause waits between an attempt that failed with err and the next attempt. It returns err if
// there should be no other attempt.
func (c *Client) pause(ctx context.Context, err error, attempt int) error {
	after, temporary := c.isTemporary(err)
	if !temporary || after > maxRetryAfter {
		return err
	}
	wait := max(after, firstPause<<(attempt-1))
	return c.sleep(ctx, wait+rand.N(wait/10), err)
}

// sleep waits, and calls KeepAlive during the wait. It returns err if ctx ends first.
func (c *Client) sleep(ctx context.Context, d time.Duration, err error) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-timer.C:
			return nil
		case <-tick.C:
			c.cfg.KeepAlive()
		case <-ctx.Done():
			return err
		}
	}
}

// isTemporary reports whether a failed request may succeed when it is repeated, and the pause
// that the server asks for.
func (c *Client) isTemporary(err error) (after time.Duration, temporary bool) {
	var (
		status  *StatusError
		network net.Error
	)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return 0, false
	case errors.As(err, &status):
		return status.RetryAfter, isTemporaryStatus(status.Code)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return 0, true
	case errors.Is(err, unix.ECONNREFUSED):
		// A server that restarts refuses connections. A server that never answered is down.
		c.mu.Lock()
		defer c.mu.Unlock()
		return 0, c.scheme != ""
	case errors.As(err, &network):
		return 0, network.Timeout()
	}
	return 0, false
}

// isTemporaryStatus reports whether a status can be temporary.
func isTemporaryStatus(code int) bool {
	switch code {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	// Proxies and content delivery networks use these codes for errors of their own.
	return code >= 520 && code < 600
}

// retryAfter returns the pause in the header Retry-After, which has a number of seconds or a
// date.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	if n, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if date, err := http.ParseTime(value); err == nil {
		return max(0, date.Sub(now))
	}
	return 0
}

package streaming

import (
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

const (
	// tokenLifetime is how long a token is valid.
	tokenLifetime = time.Minute
	// maxPending bounds the requests whose clients have not connected yet.
	maxPending = 1000
)

// pendingRequests holds the requests whose clients have not connected yet, by the
// token in the URL. The zero value is ready to use.
type pendingRequests struct {
	mu      sync.Mutex // guards byToken
	byToken map[string]pendingRequest
}

type pendingRequest struct {
	request any
	expiry  time.Time
}

// add adds a request and returns its token. It deletes expired requests.
func (p *pendingRequests) add(request any) (token string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for t, r := range p.byToken {
		if now.After(r.expiry) {
			delete(p.byToken, t)
		}
	}
	if len(p.byToken) >= maxPending {
		return "", fmt.Errorf("%d streams already wait for their clients: %w", maxPending, errdefs.ErrResourceExhausted)
	}
	if p.byToken == nil {
		p.byToken = make(map[string]pendingRequest)
	}
	token = rand.Text()
	p.byToken[token] = pendingRequest{request, now.Add(tokenLifetime)}
	return token, nil
}

// take returns the request of a token and makes the token invalid.
func (p *pendingRequests) take(token string) (any, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.byToken[token]
	delete(p.byToken, token)
	if !ok || time.Now().After(r.expiry) {
		return nil, false
	}
	return r.request, true
}

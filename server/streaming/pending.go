package streaming

import (
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

const (
	// tokenLife is for how long an address is good.
	tokenLife = time.Minute
	// maxPending bounds the addresses that nobody has come to yet.
	maxPending = 1000
)

// pending holds the requests whose client has not come yet, by the secret in
// its address.
type pending struct {
	mu       sync.Mutex // guards requests
	requests map[string]expected
}

type expected struct {
	request any
	until   time.Time
}

// add keeps a request and returns its secret.
func (p *pending) add(request any) (token string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for t, e := range p.requests {
		if now.After(e.until) {
			delete(p.requests, t)
		}
	}
	if len(p.requests) >= maxPending {
		return "", fmt.Errorf("%d streams wait for their clients already: %w", maxPending, errdefs.ErrResourceExhausted)
	}
	if p.requests == nil {
		p.requests = make(map[string]expected)
	}
	token = rand.Text()
	p.requests[token] = expected{request, now.Add(tokenLife)}
	return token, nil
}

// take returns the request of a secret, once.
func (p *pending) take(token string) (any, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.requests[token]
	delete(p.requests, token)
	if !ok || time.Now().After(e.until) {
		return nil, false
	}
	return e.request, true
}

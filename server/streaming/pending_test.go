package streaming

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
)

func TestPendingRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pendingRequests
		token, err := p.add("request")
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := p.take(token + "x"); ok {
			t.Error("take accepts a wrong token")
		}
		if got, ok := p.take(token); !ok || got != "request" {
			t.Errorf("got %v, %v", got, ok)
		}
		if _, ok := p.take(token); ok {
			t.Error("take accepts a token twice")
		}
		token, _ = p.add("request")
		time.Sleep(tokenLifetime + time.Second)
		if _, ok := p.take(token); ok {
			t.Error("take accepts an expired token")
		}
	})
}

func TestTooManyPendingRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pendingRequests
		for range maxPending {
			if _, err := p.add("request"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := p.add("request"); !errdefs.IsResourceExhausted(err) {
			t.Errorf("got %v, want ResourceExhausted", err)
		}
		time.Sleep(tokenLifetime + time.Second)
		if _, err := p.add("request"); err != nil {
			t.Error(err)
		}
		if len(p.byToken) != 1 {
			t.Errorf("%d requests are pending, want 1", len(p.byToken))
		}
	})
}

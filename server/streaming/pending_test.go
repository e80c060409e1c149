package streaming

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
)

func TestPendingRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pending
		token, err := p.add("request")
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := p.take(token + "x"); ok {
			t.Error("a wrong token is taken")
		}
		if got, ok := p.take(token); !ok || got != "request" {
			t.Errorf("got %v, %v", got, ok)
		}
		if _, ok := p.take(token); ok {
			t.Error("a token is good twice")
		}
		token, _ = p.add("late")
		time.Sleep(tokenLife + time.Second)
		if _, ok := p.take(token); ok {
			t.Error("a token is good for ever")
		}
	})
}

func TestPendingRequestsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pending
		for range maxPending {
			if _, err := p.add("request"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := p.add("one more"); !errdefs.IsResourceExhausted(err) {
			t.Errorf("got %v", err)
		}
		time.Sleep(tokenLife + time.Second)
		if _, err := p.add("later"); err != nil {
			t.Error(err)
		}
		if len(p.requests) != 1 {
			t.Errorf("%d requests are kept", len(p.requests))
		}
	})
}

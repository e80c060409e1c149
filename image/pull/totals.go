package pull

import "sync/atomic"

// Totals are the sums over all pulls of a Puller.
type Totals struct {
	Received uint64 // compressed bytes of layers from registries
	Fetched  uint64 // layers from registries
	Reused   uint64 // layers that were in the store
}

// totals are the counters of Totals.
type totals struct{ received, fetched, reused atomic.Uint64 }

// Totals returns the sums over the pulls so far, including the running and the failed ones.
func (p *Puller) Totals() Totals {
	return Totals{Received: p.totals.received.Load(), Fetched: p.totals.fetched.Load(), Reused: p.totals.reused.Load()}
}

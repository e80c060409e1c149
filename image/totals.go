package image

import "github.com/criserver/criserver/image/pull"

// Totals contains the size of the image store, and the sums over all pulls since the start of the daemon.
type Totals struct {
	Images, Layers int
	LayerBytes     uint64 // disk usage of all layers
	pull.Totals
}

// Totals returns the totals. In contrast to FSUsage, it does not request measurements of writable layers.
func (m *Manager) Totals() Totals {
	t := Totals{Images: len(m.index.Load().all), Layers: m.layers.Count(), Totals: m.puller.Load().Totals()}
	t.LayerBytes, _ = m.layers.Total()
	return t
}

// PullFailure is the class of the failure of a pull, for example "not_found".
type PullFailure = pull.Failure

// PullFailures returns all classes of failures.
func PullFailures() []PullFailure { return pull.Failures() }

// PullFailureOf returns the class of an error of Pull.
func PullFailureOf(err error) PullFailure { return pull.FailureOf(err) }

package timeline

import (
	"time"

	"github.com/criserver/criserver/internal/steps"
)

// Document is a timeline for JSON and YAML. Times are in milliseconds since Begin.
type Document struct {
	Pod       string      `json:"pod"`
	Container string      `json:"container,omitempty"`
	Name      string      `json:"name"`
	Begin     time.Time   `json:"begin"`
	Removed   bool        `json:"removed"`
	Dropped   int         `json:"dropped"` // number of steps that were not kept
	Steps     []Operation `json:"steps"`
}

// Operation is a step with the steps that it contains.
type Operation struct {
	Name       string            `json:"name"`
	Container  string            `json:"container,omitempty"` // name of the container of an operation on a container
	Start      float64           `json:"startMs"`
	Duration   float64           `json:"durationMs"`
	Running    bool              `json:"running,omitempty"`
	Waits      bool              `json:"waits,omitempty"`
	ErrorClass string            `json:"errorClass,omitempty"`
	Error      string            `json:"error,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Steps      []Operation       `json:"steps,omitempty"`
}

// NewDocument returns the document of a timeline. The operations on the pod and on its containers are in the order of
// their beginning.
func NewDocument(t steps.Timeline) Document {
	d := Document{
		Pod: t.Pod, Container: t.Container, Name: t.Name, Begin: t.Begin.UTC(), Removed: t.Removed, Dropped: dropped(t),
		Steps: []Operation{},
	}
	for _, n := range operations(t) {
		d.Steps = append(d.Steps, newOperation(n))
	}
	return d
}

func newOperation(n *node) Operation {
	e := n.entry
	o := Operation{
		Name: e.Name, Container: n.container, Start: inMilliseconds(e.Start), Duration: inMilliseconds(e.Duration),
		Running: e.Running, Waits: e.Waits, ErrorClass: string(e.Class), Error: e.Error,
	}
	for _, a := range e.Attrs {
		if o.Attributes == nil {
			o.Attributes = make(map[string]string)
		}
		o.Attributes[a.Key] = a.Value
	}
	for _, c := range n.children {
		o.Steps = append(o.Steps, newOperation(c))
	}
	return o
}

// inMilliseconds returns a duration in milliseconds with a resolution of a microsecond.
func inMilliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

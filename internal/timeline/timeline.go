// Package timeline shows the timeline of a pod or container, as package steps records it: as a table with bars, as a
// drawing, and as a document for JSON. It only reads the timeline.
package timeline

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/criserver/criserver/internal/steps"
)

// maxPause is the longest time without steps inside of a section. A pod may run for months between its start and its
// stop, so the steps of both do not fit on one time axis.
const maxPause = 10 * time.Second

// section contains steps that follow each other closely. The bars of a section have one scale.
type section struct {
	pause      time.Duration // without steps before the section; 0 for the first section
	begin, end time.Duration // since the beginning of the timeline
	rows       []row
}

// row is a step with its depth below the operation that contains the step.
type row struct {
	steps.Entry
	depth     int
	container string // name of the container of an operation on a container; "" for other steps
}

// node is an operation, or a step below it.
type node struct {
	entry     steps.Entry
	container string
	children  []*node
}

func (n *node) end() time.Duration {
	end := n.entry.Start + n.entry.Duration
	for _, c := range n.children {
		end = max(end, c.end())
	}
	return end
}

// operations returns the operations on an object and on its containers in the order of their beginning.
func operations(t steps.Timeline) []*node {
	roots := tree(t, t.Begin, "")
	if t.Container != "" {
		roots = tree(t, t.Begin, t.Name)
	}
	for _, c := range t.Containers {
		roots = append(roots, tree(c, t.Begin, c.Name)...)
	}
	slices.SortStableFunc(roots, func(a, b *node) int { return cmp.Compare(a.entry.Start, b.entry.Start) })
	return roots
}

// tree returns the operations of one timeline. The times of the nodes are relative to begin.
func tree(t steps.Timeline, begin time.Time, container string) []*node {
	var roots []*node
	nodes := make([]*node, len(t.Steps))
	for i, e := range t.Steps {
		e.Start += t.Begin.Sub(begin)
		nodes[i] = &node{entry: e}
		if e.Parent >= 0 && e.Parent < i {
			nodes[e.Parent].children = append(nodes[e.Parent].children, nodes[i])
			continue
		}
		nodes[i].container = container
		roots = append(roots, nodes[i])
	}
	return roots
}

// sections divides operations at long pauses.
func sections(roots []*node) []section {
	var all []section
	for _, n := range roots {
		last := len(all) - 1
		switch {
		case last < 0:
			all = append(all, section{begin: n.entry.Start})
		case n.entry.Start-all[last].end > maxPause:
			all = append(all, section{begin: n.entry.Start, pause: n.entry.Start - all[last].end})
		}
		s := &all[len(all)-1]
		s.end = max(s.end, n.end())
		s.rows = appendRows(s.rows, n, 0)
	}
	return all
}

func appendRows(rows []row, n *node, depth int) []row {
	rows = append(rows, row{n.entry, depth, n.container})
	for _, c := range n.children {
		rows = appendRows(rows, c, depth+1)
	}
	return rows
}

// wait is the time that a section has spent in steps of one name that only wait.
type wait struct {
	name  string
	total time.Duration
}

// waits returns the waits of a section, the longest first.
func (s section) waits() []wait {
	var all []wait
	for _, r := range s.rows {
		if !r.Waits {
			continue
		}
		i := slices.IndexFunc(all, func(w wait) bool { return w.name == r.Name })
		if i < 0 {
			all = append(all, wait{name: r.Name})
			i = len(all) - 1
		}
		all[i].total += r.Duration
	}
	slices.SortStableFunc(all, func(a, b wait) int { return cmp.Compare(b.total, a.total) })
	return all
}

// label returns the attributes of a step as one text.
func (r row) label() string {
	texts := make([]string, len(r.Attrs))
	for i, a := range r.Attrs {
		value := a.Value
		if digest, ok := strings.CutPrefix(value, "sha256:"); ok && len(digest) > shortID {
			value = "sha256:" + digest[:shortID]
		} else if a.Key == "lock" {
			value = short(value)
		}
		texts[i] = a.Key + "=" + value
	}
	return strings.Join(texts, " ")
}

// shortID is the number of characters of a short id.
const shortID = 12

// short returns the beginning of an id.
func short(id string) string {
	if len(id) == 64 {
		return id[:shortID]
	}
	return id
}

// title describes the object of a timeline.
func title(t steps.Timeline) string {
	kind := "pod sandbox"
	if t.Container != "" {
		kind = "container"
	}
	text := kind + " " + short(t.ID())
	if t.Name != "" {
		text += " (" + t.Name + ")"
	}
	if t.Removed {
		text += ", removed"
	}
	return text
}

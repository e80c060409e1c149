package timeline

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/criserver/criserver/internal/steps"
)

// barWidth is the number of characters of the longest bar.
const barWidth = 40

// WriteTable writes a timeline as a table: a row for each step, with the time from the beginning of the timeline, the
// duration, a bar, and the name below the name of the step that contains the step.
func WriteTable(w io.Writer, t steps.Timeline) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s, first step at %s\n", title(t), t.Begin.Local().Format("2006-01-02 15:04:05.000"))
	fmt.Fprintf(&b, "%14s  %12s  %-*s  %s\n", "START", "DURATION", barWidth, "", "STEP")
	for _, s := range sections(operations(t)) {
		if s.pause > 0 {
			fmt.Fprintf(&b, "%14s  no steps for %s\n", "…", s.pause.Round(time.Second))
		}
		for _, r := range s.rows {
			s.writeRow(&b, r)
		}
		for i, w := range s.waits() {
			if i == 0 {
				b.WriteString("waits: ")
			} else {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "%s %s", w.name, milliseconds(w.total))
		}
		if len(s.waits()) > 0 {
			b.WriteByte('\n')
		}
	}
	if n := dropped(t); n > 0 {
		fmt.Fprintf(&b, "%d more steps were not kept\n", n)
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (s section) writeRow(b *bytes.Buffer, r row) {
	duration := milliseconds(r.Duration)
	if r.Running {
		duration = "> " + duration
	}
	line := fmt.Sprintf("%14s  %12s  %s  %s%s", "+"+milliseconds(r.Start), duration, s.bar(r), strings.Repeat("  ", r.depth), r.description())
	b.WriteString(strings.TrimRightFunc(line, unicode.IsSpace) + "\n")
}

// description returns the name of the step with its attributes and its error.
func (r row) description() string {
	text := r.Name
	if r.container != "" {
		text += " container=" + printable(r.container)
	}
	if label := r.label(); label != "" {
		text += " " + printable(label)
	}
	if r.Running {
		text += " (running)"
	}
	if r.Class != "" {
		text += fmt.Sprintf(" ✗ %s: %s", r.Class, printable(r.Error))
	}
	return text
}

// bar returns a bar at the position of the step in the section. Steps that wait have a lighter bar.
func (s section) bar(r row) string {
	cells := []rune(strings.Repeat(" ", barWidth))
	total := s.end - s.begin
	if total <= 0 {
		total = 1
	}
	column := func(at time.Duration) int { return int(float64(barWidth)*float64(at-s.begin)/float64(total) + 0.5) }
	first, end := min(column(r.Start), barWidth-1), min(column(r.Start+r.Duration), barWidth)
	if end <= first {
		cells[first] = '▏' // shorter than half a character
		return string(cells)
	}
	block := '█'
	if r.Waits {
		block = '▒'
	}
	for i := first; i < end; i++ {
		cells[i] = block
	}
	return string(cells)
}

// milliseconds returns a duration in milliseconds, with a unit.
func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// dropped returns the number of steps that are missing in a timeline and in the timelines of its containers.
func dropped(t steps.Timeline) int {
	n := t.Dropped
	for _, c := range t.Containers {
		n += c.Dropped
	}
	return n
}

// printable replaces control characters. Errors can quote the output of programs.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
}

package timeline

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/criserver/criserver/internal/draw"
	"github.com/criserver/criserver/internal/steps"
)

// The layout of the drawing, in pixels.
const (
	left      = 16.0
	nameWidth = 300.0 // of the names of steps
	axisLeft  = left + nameWidth + 12
	axisWidth = 700.0
	rowHeight = 20.0
	barHeight = 13.0
	indent    = 14.0
	minBar    = 2.0
	textSize  = 11.0
)

// WriteSVG writes a timeline as a drawing: a row with a bar for each step, and a time axis for each section.
func WriteSVG(w io.Writer, t steps.Timeline) error {
	var d draw.SVG
	y := 30.0
	d.Text(left, y, draw.Font{Size: 16, Bold: true}, "Timeline of "+printable(title(t)))
	y += 18
	d.Text(left, y, draw.Font{Size: textSize, Color: draw.Faint},
		"first step at "+t.Begin.Local().Format("2006-01-02 15:04:05.000 MST")+"; times in milliseconds since then")
	y = legend(&d, y+10)
	for _, s := range sections(operations(t)) {
		if s.pause > 0 {
			d.Text(left, y+14, draw.Font{Size: textSize, Color: draw.Faint}, "no steps for "+s.pause.Round(time.Second).String())
			y += 24
		}
		y = s.draw(&d, y)
	}
	if n := dropped(t); n > 0 {
		d.Text(left, y+14, draw.Font{Size: textSize, Color: draw.Faint}, fmt.Sprintf("%d more steps were not kept", n))
	}
	return d.Write(w, "Timeline of "+printable(title(t)))
}

// kind is a group of steps with one color.
type kind struct {
	name         string
	color, light draw.Color
}

var (
	kindOperation = kind{"operation", draw.Border, draw.Border}
	kindDaemon    = kind{"daemon", draw.Blue, draw.Blue}
	kindNetwork   = kind{"network", draw.Green, draw.Green}
	kindRuntime   = kind{"monitor and OCI runtime", draw.Purple, draw.Purple}
	kindImage     = kind{"image and file systems", draw.Orange, draw.Orange}
	kindWait      = kind{"wait", draw.Orange, draw.LightAmber}
	kindError     = kind{"error", draw.Red, draw.LightRed}
)

// kindOf returns the kind of a step.
func kindOf(r row) kind {
	family, _, _ := strings.Cut(r.Name, ".")
	switch {
	case r.Class != "":
		return kindError
	case r.Waits:
		return kindWait
	case r.depth == 0:
		return kindOperation
	case family == "cni" || family == "network":
		return kindNetwork
	case family == "monitor" || family == "runtime" || family == "guest":
		return kindRuntime
	case family == "image" || family == "rootfs" || family == "volume":
		return kindImage
	}
	return kindDaemon
}

// legend draws the colors of the kinds below y, and returns the lower end of the legend.
func legend(d *draw.SVG, y float64) float64 {
	x := left
	for _, k := range []kind{kindOperation, kindDaemon, kindNetwork, kindRuntime, kindImage, kindWait, kindError} {
		d.Box(x, y+4, 12, 10, draw.Style{Fill: k.light, Stroke: k.color})
		d.Text(x+17, y+13, draw.Font{Size: textSize}, k.name)
		x += 17 + draw.Width(k.name, textSize, false) + 18
	}
	return y + 28
}

// draw draws a section below y and returns its lower end.
func (s section) draw(d *draw.SVG, y float64) float64 {
	const axisHeight = 22.0
	total := max(s.end-s.begin, time.Microsecond)
	position := func(at time.Duration) float64 { return axisLeft + axisWidth*float64(at-s.begin)/float64(total) }
	bottom := y + axisHeight + rowHeight*float64(len(s.rows))
	step := tickStep(total)
	for at := s.begin.Truncate(step); at <= s.end; at += step {
		if at < s.begin {
			continue
		}
		d.Line(draw.Style{Stroke: grid}, position(at), y+axisHeight-4, position(at), bottom)
		d.Text(position(at), y+axisHeight-8, draw.Font{Size: 10, Color: draw.Faint, Anchor: draw.Middle}, tickLabel(at))
	}
	y += axisHeight
	for i, r := range s.rows {
		if i%2 == 0 {
			d.Box(left-4, y, nameWidth+8, rowHeight, draw.Style{Fill: draw.Panel})
		}
		s.drawRow(d, y, r, position)
		y += rowHeight
	}
	return bottom + 14
}

// grid is the color of the lines of the time axis.
const grid draw.Color = "#e4e7eb"

func (s section) drawRow(d *draw.SVG, y float64, r row, position func(time.Duration) float64) {
	duration := milliseconds(r.Duration)
	if r.Running {
		duration = "running for " + duration
	}
	d.Begin(fmt.Sprintf("%s: start +%s, %s", r.description(), milliseconds(r.Start), duration))
	x := left + indent*float64(r.depth)
	d.Text(x, y+14, draw.Font{Size: textSize, Bold: r.depth == 0}, draw.Fit(r.caption(), textSize, r.depth == 0, left+nameWidth-x))
	from, to := position(r.Start), position(r.Start+r.Duration)
	width, k := max(to-from, minBar), kindOf(r)
	d.Box(from, y+(rowHeight-barHeight)/2, width, barHeight, draw.Style{Fill: k.light, Stroke: k.color, Dashed: r.Running, Radius: 1.5})
	if r.Class != "" {
		duration += ", " + string(r.Class)
	}
	font := draw.Font{Size: 10, Color: draw.Faint}
	// The text is to the right of the bar, or to the left if there is no space on the right.
	if space := axisLeft + axisWidth + 140 - from - width; draw.Width(duration, font.Size, false) > space {
		font.Anchor = draw.End
		d.Text(from-4, y+14, font, duration)
	} else {
		d.Text(from+width+4, y+14, font, duration)
	}
	d.End()
}

// caption returns the name of a step with its attributes.
func (r row) caption() string {
	text := r.Name
	if r.container != "" {
		text += " " + r.container
	}
	for _, a := range r.Attrs {
		if a.Value == "true" {
			text += " " + a.Key
			continue
		}
		text += " " + short(a.Value)
	}
	return printable(text)
}

// tickStep returns the distance of the marks of a time axis: 1, 2 or 5 times a power of ten, at most ten of them.
func tickStep(total time.Duration) time.Duration {
	power := math.Pow(10, math.Floor(math.Log10(float64(total)/10)))
	for _, factor := range []float64{1, 2, 5, 10} {
		if step := power * factor; float64(total)/step <= 10 {
			return max(time.Duration(step), 1)
		}
	}
	return total
}

// tickLabel returns a time in milliseconds without superfluous decimals.
func tickLabel(at time.Duration) string {
	text := fmt.Sprintf("%.3f", float64(at)/float64(time.Millisecond))
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}

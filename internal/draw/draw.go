// Package draw writes drawings as SVG files: boxes, lines, arrows and text. It does not know the subject of a drawing,
// and does no layout except for the width of text.
//
// Drawings have their own background, so that they are legible on light and dark pages, and use no font that a viewer
// may not have.
package draw

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Color is a color in the notation of SVG, for example "#1f6feb". "" means no color.
type Color string

// The palette of all drawings. The colors of lines and of text are legible on Background and on the light fills.
const (
	Background Color = "#ffffff"
	Text       Color = "#1b1f24"
	Faint      Color = "#57606a"
	Border     Color = "#8c959f"
	Panel      Color = "#f6f8fa"
	Blue       Color = "#0b5cad"
	LightBlue  Color = "#ddeeff"
	Green      Color = "#1a7f37"
	LightGreen Color = "#e3f6e8"
	Orange     Color = "#a04900"
	LightAmber Color = "#fff3d6"
	Red        Color = "#b3151f"
	LightRed   Color = "#ffe5e5"
	Purple     Color = "#6639ba"
)

// SVG is a drawing. The zero value is an empty drawing. Coordinates are in pixels from the upper left corner.
type SVG struct {
	body   bytes.Buffer
	arrows []Color // the colors of arrow heads
	w, h   float64
}

// Style is the style of a shape. A shape without Stroke has no outline.
type Style struct {
	Fill, Stroke Color
	Width        float64 // of the outline; 0 is 1
	Dashed       bool
	Radius       float64 // of the corners of boxes
	Arrow        bool    // a line ends with an arrow head
}

// Anchor says which point of a text is at its coordinates.
type Anchor string

// The anchors of texts.
const (
	Start  Anchor = "start"
	Middle Anchor = "middle"
	End    Anchor = "end"
)

// Font is the style of a text. The zero value is Text in 12 pixels.
type Font struct {
	Size   float64 // in pixels; 0 is 12
	Bold   bool
	Color  Color
	Anchor Anchor
}

func (f Font) size() float64 {
	if f.Size == 0 {
		return 12
	}
	return f.Size
}

// grow makes the drawing include a point.
func (s *SVG) grow(x, y float64) { s.w, s.h = max(s.w, x), max(s.h, y) }

// Box draws a rectangle.
func (s *SVG) Box(x, y, w, h float64, st Style) {
	s.grow(x+w, y+h)
	radius := ""
	if st.Radius > 0 {
		radius = fmt.Sprintf(` rx="%s"`, num(st.Radius))
	}
	fmt.Fprintf(&s.body, `<rect x="%s" y="%s" width="%s" height="%s"%s%s/>`+"\n", num(x), num(y), num(w), num(h), radius, st.attributes())
}

// Line draws a line through points, given as x and y in turn.
func (s *SVG) Line(st Style, points ...float64) {
	var b strings.Builder
	for i := 0; i+1 < len(points); i += 2 {
		s.grow(points[i], points[i+1])
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(num(points[i]) + "," + num(points[i+1]))
	}
	st.Fill = ""
	fmt.Fprintf(&s.body, `<polyline points="%s"%s%s/>`+"\n", b.String(), st.attributes(), s.arrow(st))
}

// Cloud draws a cloud in a rectangle.
func (s *SVG) Cloud(x, y, w, h float64, st Style) {
	s.grow(x+w, y+h)
	at := func(fx, fy float64) string { return num(x+fx*w) + " " + num(y+fy*h) }
	fmt.Fprintf(&s.body, `<path d="M%s C%s %s %s C%s %s %s C%s %s %s C%s %s %s C%s %s %s Z"%s/>`+"\n",
		at(.18, .95),
		at(-.06, .95), at(-.04, .38), at(.16, .40),
		at(.16, .0), at(.44, -.08), at(.50, .18),
		at(.62, -.08), at(.84, .02), at(.82, .34),
		at(1.04, .32), at(1.06, .95), at(.84, .95),
		at(.62, .97), at(.40, .97), at(.18, .95),
		st.attributes())
}

// Text draws a text on one line. y is the base line.
func (s *SVG) Text(x, y float64, f Font, text string) {
	width := Width(text, f.size(), f.Bold)
	switch f.Anchor {
	case Middle:
		s.grow(x+width/2, y)
	case End:
		s.grow(x, y)
	default:
		s.grow(x+width, y)
	}
	var attrs strings.Builder
	if f.size() != 12 {
		fmt.Fprintf(&attrs, ` font-size="%s"`, num(f.size()))
	}
	if f.Bold {
		attrs.WriteString(` font-weight="bold"`)
	}
	if f.Color != "" && f.Color != Text {
		fmt.Fprintf(&attrs, ` fill="%s"`, f.Color)
	}
	if f.Anchor != "" && f.Anchor != Start {
		fmt.Fprintf(&attrs, ` text-anchor="%s"`, f.Anchor)
	}
	fmt.Fprintf(&s.body, `<text x="%s" y="%s"%s>%s</text>`+"\n", num(x), num(y), attrs.String(), escape(text))
}

// Begin begins a group with a title, which viewers show as a tool tip. End ends the group.
func (s *SVG) Begin(title string) { fmt.Fprintf(&s.body, "<g><title>%s</title>\n", escape(title)) }

// End ends the group that Begin has begun.
func (s *SVG) End() { s.body.WriteString("</g>\n") }

// margin is the space to the right of and below everything that was drawn, in pixels.
const margin = 16

// Write writes the drawing with a title, which viewers and screen readers show.
func (s *SVG) Write(w io.Writer, title string) error {
	var b bytes.Buffer
	width, height := num(s.w+margin), num(s.h+margin)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%s" height="%s" viewBox="0 0 %s %s" role="img" font-family="sans-serif" font-size="12" fill="%s">`+"\n",
		width, height, width, height, Text)
	fmt.Fprintf(&b, "<title>%s</title>\n", escape(title))
	if len(s.arrows) > 0 {
		b.WriteString("<defs>\n")
		for i, c := range s.arrows {
			fmt.Fprintf(&b, `<marker id="arrow%d" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8Z" fill="%s"/></marker>`+"\n", i, c)
		}
		b.WriteString("</defs>\n")
	}
	fmt.Fprintf(&b, `<rect width="%s" height="%s" fill="%s"/>`+"\n", width, height, Background)
	b.Write(s.body.Bytes())
	b.WriteString("</svg>\n")
	_, err := w.Write(b.Bytes())
	return err
}

func (st Style) attributes() string {
	var b strings.Builder
	fill := st.Fill
	if fill == "" {
		fill = "none"
	}
	fmt.Fprintf(&b, ` fill="%s"`, fill)
	if st.Stroke != "" {
		fmt.Fprintf(&b, ` stroke="%s"`, st.Stroke)
		if st.Width != 0 && st.Width != 1 {
			fmt.Fprintf(&b, ` stroke-width="%s"`, num(st.Width))
		}
		if st.Dashed {
			b.WriteString(` stroke-dasharray="5 3"`)
		}
	}
	return b.String()
}

// arrow returns the attribute for the arrow head of a line.
func (s *SVG) arrow(st Style) string {
	if !st.Arrow {
		return ""
	}
	for i, c := range s.arrows {
		if c == st.Stroke {
			return fmt.Sprintf(` marker-end="url(#arrow%d)"`, i)
		}
	}
	s.arrows = append(s.arrows, st.Stroke)
	return fmt.Sprintf(` marker-end="url(#arrow%d)"`, len(s.arrows)-1)
}

// num formats a coordinate with at most one decimal, so that drawings are small and stable.
func num(v float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0")
}

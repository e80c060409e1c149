package draw

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// render returns the drawing, which must be well-formed XML.
func render(t *testing.T, s *SVG, title string) string {
	t.Helper()
	var b bytes.Buffer
	if err := s.Write(&b, title); err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(strings.NewReader(b.String()))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return b.String()
		} else if err != nil {
			t.Fatalf("the drawing is not well-formed XML: %v\n%s", err, b.String())
		}
	}
}

func TestShapes(t *testing.T) {
	s := &SVG{}
	s.Begin("group")
	s.Box(10, 10, 100, 50, Style{Fill: LightBlue, Stroke: Blue, Radius: 4})
	s.Line(Style{Stroke: Orange, Width: 2, Dashed: true, Arrow: true}, 10, 10, 10, 90.25, 200, 90.25)
	s.Line(Style{Stroke: Orange, Arrow: true}, 0, 0, 5, 5)
	s.Cloud(0, 0, 60, 30, Style{Stroke: Border})
	s.Text(20, 30, Font{Bold: true, Size: 14, Color: Red, Anchor: Middle}, "a")
	s.End()
	out := render(t, s, "shapes")
	for _, want := range []string{
		`<rect x="10" y="10" width="100" height="50" rx="4" fill="#ddeeff" stroke="#0b5cad"/>`,
		`<polyline points="10,10 10,90.2 200,90.2" fill="none" stroke="#a04900" stroke-width="2" stroke-dasharray="5 3" marker-end="url(#arrow0)"/>`,
		`<text x="20" y="30" font-size="14" font-weight="bold" fill="#b3151f" text-anchor="middle">a</text>`,
		`width="216" height="106.2"`, `<title>shapes</title>`, `<title>group</title>`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the drawing lacks %s:\n%s", want, out)
		}
	}
	if n := strings.Count(out, "<marker"); n != 1 {
		t.Errorf("got %d arrow heads for one color, want 1", n)
	}
}

func TestTextIsEscaped(t *testing.T) {
	s := &SVG{}
	s.Text(0, 10, Font{}, "</text><script>alert(\"&\")</script>\x00\x1b")
	s.Begin(`a<b>"&`)
	s.End()
	out := render(t, s, "<title>&")
	if strings.Contains(out, "<script") || !strings.Contains(out, "&lt;script&gt;") {
		t.Errorf("text is not escaped:\n%s", out)
	}
}

func TestFit(t *testing.T) {
	if got := Fit("short", 12, false, 100); got != "short" {
		t.Errorf("got %q, want the text", got)
	}
	for _, width := range []float64{5, 30, 80} {
		got := Fit("a long text that does not fit", 12, true, width)
		if !strings.HasSuffix(got, "…") || got != "…" && Width(got, 12, true) > width {
			t.Errorf("width %v: got %q of width %v", width, got, Width(got, 12, true))
		}
	}
	if got := Fit("日本語日本語", 12, false, 40); got != "日本…" {
		t.Errorf("got %q, want two characters and an ellipsis", got)
	}
}

func TestWrap(t *testing.T) {
	got := Wrap("one two three four five six", 10, false, 60, 2)
	if len(got) != 2 || !strings.HasSuffix(got[1], "…") {
		t.Errorf("got %q, want two lines, the second with an ellipsis", got)
	}
	for _, line := range got {
		if Width(line, 10, false) > 60 {
			t.Errorf("line %q is wider than 60 pixels", line)
		}
	}
	if got := Wrap("one two", 10, false, 500, 3); !slices.Equal(got, []string{"one two"}) {
		t.Errorf("got %q, want one line", got)
	}
	if got := Wrap("", 10, false, 500, 3); got != nil {
		t.Errorf("got %q, want no lines", got)
	}
}

package netview

import (
	"fmt"
	"io"
	"math"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/draw"
)

// Distances in pixels.
const (
	border     = 24  // around the host
	trunk      = 30  // between the host's outline and the pods, for the lines on both sides
	cellWidth  = 262 // of a pod
	cellGap    = 20
	lineHeight = 16
	minColumns = 2
	railWidth  = 5
	// manyPods is the number of pods from which the pods are drawn with fewer lines.
	manyPods = 9
)

// picture is the state of drawing one node.
type picture struct {
	draw.SVG

	r           *adminv1.InspectNetworkResponse
	columns     int
	compact     bool
	left, right float64 // of the pods
	uplinkX     float64 // the middle of the uplinks
	uplinkY     float64 // the lower edge of the uplinks
	uplinkRight float64
	portsX      float64 // of the line of the host ports
	offset      float64 // of the first pod of a row from left
	portsY      float64 // where the line of the host ports has been drawn to; 0 before its begin
	y           float64 // the upper edge of the next part
}

// SVG draws the node: the host with its uplinks, the bridges, the veth pairs, the network namespaces of the pods with
// their addresses and containers, masquerading and host ports. Problems are red.
func SVG(w io.Writer, r *adminv1.InspectNetworkResponse) error {
	all := groups(r)
	p := &picture{r: r, columns: columns(all), compact: len(r.GetPods()) >= manyPods}
	p.left = border + trunk
	width := max(float64(p.columns)*(cellWidth+cellGap)-cellGap, float64(minColumns)*(cellWidth+cellGap)-cellGap)
	p.right = p.left + width
	p.portsX = p.right + trunk/2
	body := *p // the outline of the host lies below its content, so its size must be known first
	bottom := body.content(all)
	p.outline(bottom)
	p.content(all)
	return p.Write(w, "Network of node "+r.GetHost().GetName())
}

// columns returns the number of pods in a row.
func columns(all []group) int {
	most := 1
	for _, g := range all {
		most = max(most, len(g.pods))
	}
	if most <= 4 {
		return most
	}
	return min(5, int(math.Ceil(math.Sqrt(float64(most)*1.2))))
}

const hostTop = 142

func (p *picture) outline(bottom float64) {
	p.Box(border, hostTop, p.right+trunk-border, bottom-hostTop, draw.Style{Fill: draw.Panel, Stroke: draw.Border, Radius: 10})
}

// content draws everything inside the host and above it, and returns the lower edge of the host.
func (p *picture) content(all []group) float64 {
	p.header()
	p.uplinks()
	routeX := float64(border) + trunk/2 - 6
	for i, g := range all {
		if g.bridge != nil {
			p.route(i, routeX)
		}
		p.group(g)
	}
	if len(all) == 0 {
		p.Text(p.left, p.y+10, draw.Font{Color: draw.Faint}, "There are no pods and no bridges.")
		p.y += 30
	}
	p.nodeProblems()
	return p.y
}

// header draws the title and the cloud.
func (p *picture) header() {
	name := p.r.GetHost().GetName()
	width := p.right - border
	p.Text(border, 30, draw.Font{Size: 18, Bold: true}, draw.Fit("Network of node "+name, 18, true, width))
	errors, warnings := countProblems(p.r)
	status := draw.Font{Size: 12, Color: draw.Green}
	text := count(len(p.r.GetPods()), "pod") + ", no problems"
	if errors+warnings > 0 {
		text = fmt.Sprintf("%s, %s, %s", count(len(p.r.GetPods()), "pod"), count(errors, "problem"), count(warnings, "warning"))
	}
	if errors > 0 {
		status.Color, status.Bold = draw.Red, true
	} else if warnings > 0 {
		status.Color = draw.Orange
	}
	p.Text(border, 50, status, text)
	p.uplinkX = (p.left + p.right) / 2
	p.Cloud(p.uplinkX-95, 54, 190, 62, draw.Style{Fill: draw.LightBlue, Stroke: draw.Border})
	p.Text(p.uplinkX, 94, draw.Font{Bold: true, Anchor: draw.Middle}, "other machines")
}

// uplinks draws the interfaces of the host with a default route.
func (p *picture) uplinks() {
	h := p.r.GetHost()
	p.Text(border+12, hostTop+22, draw.Font{Bold: true, Color: draw.Faint}, draw.Fit("host "+h.GetName(), 12, true, p.uplinkX-110-border-12))
	forwarding := draw.Font{Size: 11, Color: draw.Faint}
	if containsError(p.r.GetProblems(), "net.ipv4.ip_forward") || containsError(p.r.GetProblems(), "net.ipv6.conf.all.forwarding") {
		forwarding.Color = draw.Red
	}
	p.Text(border+12, hostTop+38, forwarding, "forwarding: IPv4 "+onOff(h.GetIpv4Forwarding())+", IPv6 "+onOff(h.GetIpv6Forwarding()))
	const width, top = 200, hostTop + 14
	lines := []string{"no default route"}
	title := "uplink"
	if links := h.GetUplinks(); len(links) > 0 {
		lines = nil
		for i, l := range links {
			if i > 0 {
				lines = append(lines, l.GetName())
			} else {
				title = "uplink " + l.GetName()
			}
			lines = append(lines, addresses(l)...)
		}
	}
	height := float64(24 + len(lines)*14)
	p.Line(draw.Style{Stroke: draw.Text, Width: 2}, p.uplinkX, 115, p.uplinkX, top)
	p.Box(p.uplinkX-width/2, top, width, height, draw.Style{Fill: draw.Background, Stroke: draw.Text, Radius: 4})
	p.Text(p.uplinkX, top+16, draw.Font{Bold: true, Anchor: draw.Middle}, draw.Fit(title, 12, true, width-10))
	for i, l := range lines {
		p.Text(p.uplinkX, top+30+float64(i)*14, draw.Font{Size: 11, Anchor: draw.Middle}, draw.Fit(l, 11, false, width-10))
	}
	p.uplinkY, p.uplinkRight = top+height, p.uplinkX+width/2
	p.y = p.uplinkY
	p.masquerade()
}

// masquerade draws the rules for masquerading on the line from the bridges to the uplink.
func (p *picture) masquerade() {
	sources := masquerades(p.r)
	if len(sources) == 0 {
		p.y += 26
		return
	}
	const most, width = 4, 250
	shown := sources
	if len(shown) > most {
		shown = append(append([]string(nil), sources[:most-1]...), fmt.Sprintf("and %d more", len(sources)-most+1))
	}
	top, height := p.uplinkY+18, float64(22+14*len(shown))
	p.Line(draw.Style{Stroke: draw.Text, Width: 2}, p.uplinkX, p.uplinkY, p.uplinkX, top)
	p.Box(p.uplinkX-width/2, top, width, height, draw.Style{Fill: draw.LightGreen, Stroke: draw.Green, Radius: height / 2})
	p.Text(p.uplinkX, top+16, draw.Font{Bold: true, Color: draw.Green, Anchor: draw.Middle}, "masquerading of")
	for i, s := range shown {
		p.Text(p.uplinkX, top+30+float64(i)*14, draw.Font{Size: 11, Anchor: draw.Middle}, draw.Fit(s, 11, false, width-30))
	}
	p.uplinkY = top + height
	p.y = p.uplinkY + 24
}

// route draws the line from the uplink to a bridge. The line to the first bridge is straight; the lines to the others
// run along the left side.
func (p *picture) route(index int, x float64) {
	st := draw.Style{Stroke: draw.Text, Width: 2}
	if index == 0 {
		p.Line(st, p.uplinkX, p.uplinkY, p.uplinkX, p.y)
		return
	}
	p.Line(st, p.uplinkX, p.uplinkY+10, x, p.uplinkY+10, x, p.y+20, p.left, p.y+20)
}

// nodeProblems draws the problems of the node.
func (p *picture) nodeProblems() {
	var lines []string
	lines = append(lines, p.r.GetErrors()...)
	warningsFrom := len(lines)
	for _, severity := range []string{"error", "warning"} {
		for _, q := range p.r.GetProblems() {
			if q.GetSeverity() == severity {
				lines = append(lines, q.GetSubject()+": "+q.GetMessage())
			}
		}
		if severity == "error" {
			warningsFrom = len(lines)
		}
	}
	if len(lines) == 0 {
		return
	}
	p.Text(p.left, p.y+4, draw.Font{Bold: true}, "Problems of the node")
	p.y += 8
	for i, l := range lines {
		color := draw.Red
		if i >= warningsFrom {
			color = draw.Orange
		}
		for _, part := range draw.Wrap(l, 12, false, p.right-p.left, 3) {
			p.y += lineHeight
			p.Text(p.left, p.y, draw.Font{Color: color}, part)
		}
	}
	p.y += 16
}

func countProblems(r *adminv1.InspectNetworkResponse) (errors, warnings int) {
	errors = len(r.GetErrors())
	add := func(problems []*adminv1.NetworkProblem) {
		for _, q := range problems {
			if q.GetSeverity() == "error" {
				errors++
			} else {
				warnings++
			}
		}
	}
	add(r.GetProblems())
	for _, pod := range r.GetPods() {
		if pod.GetError() != "" {
			errors++
		}
		add(pod.GetProblems())
	}
	return errors, warnings
}

// onOff returns the meaning of a sysctl for forwarding.
func onOff(value string) string {
	switch value {
	case "":
		return "not available"
	case "0":
		return "off"
	}
	return "on"
}

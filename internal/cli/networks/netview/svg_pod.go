package netview

import (
	"fmt"
	"strings"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/draw"
)

// podLine is a line of the box of a pod.
type podLine struct {
	text string
	font draw.Font
	box  bool // a container
}

const (
	podPadding    = 10
	maxContainers = 4
	maxProblems   = 3
)

// podHeight returns the height that the box of a pod needs.
func (p *picture) podHeight(pod *adminv1.NetworkPod) float64 {
	height := 2.0*podPadding - 4
	for _, l := range p.podLines(pod) {
		height += l.height()
	}
	return height
}

func (l podLine) height() float64 {
	if l.box {
		return lineHeight + 6
	}
	return lineHeight
}

// podLines returns the content of the box of a pod.
func (p *picture) podLines(pod *adminv1.NetworkPod) []podLine {
	width := float64(cellWidth - 2*podPadding)
	var out []podLine
	add := func(f draw.Font, format string, args ...any) {
		size := f.Size
		if size == 0 {
			size = 12
		}
		out = append(out, podLine{text: draw.Fit(fmt.Sprintf(format, args...), size, f.Bold, width), font: f})
	}
	faint := draw.Font{Size: 11, Color: draw.Faint}
	for _, part := range splitName(pod.GetName(), 13, width) {
		add(draw.Font{Size: 13, Bold: true}, "%s", part)
	}
	add(faint, "%s · %s", pod.GetNamespace(), ShortID(pod.GetId()))
	switch {
	case pod.GetNotReadyReason() != "":
		add(faint, "not ready: %s", pod.GetNotReadyReason())
	case pod.GetHostNetwork():
		add(faint, "network of the host")
	case !p.compact && pod.GetNetnsInode() != 0:
		add(faint, "network namespace %d", pod.GetNetnsInode())
	}
	for i, face := range interfaces(pod) {
		p.interfaceLines(pod, face, i > 0, add)
	}
	if g := gateways(pod); len(g) > 0 && !p.compact {
		add(faint, "default via %s", strings.Join(g, ", "))
	}
	if d := pod.GetDns(); len(d.GetServers()) > 0 && !p.compact {
		add(faint, "DNS %s", strings.Join(d.GetServers(), ", "))
	}
	for i, h := range hostPorts(pod) {
		if i == maxPorts-1 && len(hostPorts(pod)) > maxPorts {
			add(draw.Font{Size: 11, Color: draw.Orange}, "and %d more host ports", len(hostPorts(pod))-i)
			break
		}
		add(draw.Font{Size: 11, Color: draw.Orange}, "%s → port %s", h.from, h.to)
	}
	for _, s := range pod.GetShaping() {
		add(faint, "at most %s %s", Rate(s.GetRate()), s.GetDirection())
	}
	for i, c := range pod.GetContainers() {
		if i == maxContainers-1 && len(pod.GetContainers()) > maxContainers {
			c = fmt.Sprintf("and %d more containers", len(pod.GetContainers())-i)
		}
		if i == maxContainers {
			break
		}
		out = append(out, podLine{text: draw.Fit(c, 11, false, width-16), font: draw.Font{Size: 11}, box: true})
	}
	return append(out, problemLines(pod, width)...)
}

// interfaceLines adds the lines of an interface.
func (p *picture) interfaceLines(pod *adminv1.NetworkPod, i *adminv1.NetworkInterface, further bool, add func(draw.Font, string, ...any)) {
	l := i.GetLink()
	name := draw.Font{Bold: true}
	if containsError(pod.GetProblems(), l.GetName()) {
		name.Color = draw.Red
	}
	text := l.GetName()
	switch b := i.GetPort().GetBridge(); {
	case further && b != "":
		text += " · bridge " + b
	case i.GetHost() != nil && (further || l.GetType() != "veth"):
		text += " · " + l.GetType() + " of " + i.GetHost().GetName()
	case !p.compact:
		text += fmt.Sprintf(" · MTU %d", l.GetMtu())
	}
	if !l.GetUp() {
		text += " · down"
	} else if !l.GetCarrier() {
		text += " · no carrier"
	}
	add(name, "%s", text)
	for _, a := range addresses(l) {
		add(draw.Font{}, "%s", a)
	}
	if c := l.GetCounters(); c.GetRxErrors()+c.GetTxErrors()+c.GetRxDropped()+c.GetTxDropped() > 0 {
		add(draw.Font{Size: 11, Color: draw.Faint}, "errors %d, dropped %d", c.GetRxErrors()+c.GetTxErrors(), c.GetRxDropped()+c.GetTxDropped())
	}
}

// splitName returns the name of a pod in at most two lines of a bold font. It breaks the name after a hyphen or a dot.
func splitName(name string, size, width float64) []string {
	if draw.Width(name, size, true) <= width {
		return []string{name}
	}
	cut := 0
	for i, r := range name {
		if (r == '-' || r == '.') && draw.Width(name[:i+1], size, true) <= width {
			cut = i + 1
		}
	}
	if cut == 0 {
		return []string{name}
	}
	return []string{name[:cut], name[cut:]}
}

// problemLines returns the problems of a pod in at most three lines each.
func problemLines(pod *adminv1.NetworkPod, width float64) []podLine {
	f := draw.Font{Size: 11, Color: draw.Orange}
	if hasError(pod) {
		f.Color = draw.Red
	}
	var out []podLine
	all := problemTexts(pod)
	for i, text := range all {
		if i == maxProblems {
			return append(out, podLine{text: fmt.Sprintf("and %d more problems", len(all)-i), font: f})
		}
		for _, part := range draw.Wrap(text, 11, false, width, 3) {
			out = append(out, podLine{text: part, font: f})
		}
	}
	return out
}

// pod draws the box of a pod: its network namespace.
func (p *picture) pod(pod *adminv1.NetworkPod, x, top, height float64) {
	st := draw.Style{Fill: draw.Background, Stroke: draw.Text, Width: 1.5, Radius: 6}
	switch {
	case hasError(pod):
		st.Stroke, st.Width = draw.Red, 2.5
	case pod.GetNotReadyReason() != "" || pod.GetHostNetwork():
		st.Stroke, st.Dashed = draw.Border, true
	}
	p.Begin(podName(pod) + " " + pod.GetId())
	p.Box(x, top, cellWidth, height, st)
	y := top + podPadding - 2
	for _, l := range p.podLines(pod) {
		if l.box {
			p.Box(x+podPadding, y+3, cellWidth-2*podPadding, lineHeight+2, draw.Style{Fill: draw.LightGreen, Stroke: draw.Green, Radius: 4})
			p.Text(x+podPadding+8, y+16, l.font, l.text)
		} else {
			p.Text(x+podPadding, y+12, l.font, l.text)
		}
		y += l.height()
	}
	p.End()
}

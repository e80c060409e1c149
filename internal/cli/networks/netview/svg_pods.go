package netview

import (
	"fmt"
	"strings"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/draw"
)

// group draws a bridge, or the title of another group, and the pods below it.
func (p *picture) group(g group) {
	var rail float64
	if g.bridge != nil {
		rail = p.bridge(g.bridge)
	} else {
		p.Text(p.left, p.y+16, draw.Font{Bold: true}, "Other pods")
		rail = p.y + 14
	}
	p.offset = 0
	if n := len(g.pods); g.bridge != nil && n > 0 && n < p.columns {
		p.offset = (p.right - p.left - p.rowWidth(n)) / 2
	} else if n == 1 && p.columns == 1 {
		p.offset = (p.right - p.left - p.rowWidth(1)) / 2
	}
	first := rail
	for start := 0; start < len(g.pods); start += p.columns {
		row := g.pods[start:min(start+p.columns, len(g.pods))]
		if start > 0 && g.bridge != nil {
			// The bridge continues on the left side and above each further row.
			x := p.left - trunk/2 + 4
			st := draw.Style{Stroke: draw.Blue, Width: railWidth}
			last := p.cellX(len(row)-1) + vethCenter
			p.Line(st, p.left+8, first-2, x, first-2, x, rail, last, rail)
		}
		rail = p.row(g, row, rail) + 22
	}
	if len(g.pods) == 0 {
		rail += 24
	}
	p.y = rail + 6
}

// rowWidth returns the width of pods side by side.
func (p *picture) rowWidth(pods int) float64 { return float64(pods)*(cellWidth+cellGap) - cellGap }

// cellX returns the left edge of the pod at a position of a row.
func (p *picture) cellX(i int) float64 { return p.left + p.offset + float64(i)*(cellWidth+cellGap) }

// bridge draws a bridge and returns its lower edge.
func (p *picture) bridge(b *adminv1.NetworkBridge) float64 {
	l := b.GetLink()
	subject := "bridge " + l.GetName()
	st := draw.Style{Fill: draw.LightBlue, Stroke: draw.Blue, Width: 2, Radius: 4}
	title, details := subject, fmt.Sprintf("MTU %d, %s, %s", l.GetMtu(), l.GetState(), count(len(b.GetPorts()), "port"))
	if b.GetStp() {
		details += ", STP"
	}
	if b.GetVlanFiltering() {
		details += ", VLAN filtering"
	}
	if b.GetMissing() {
		details = "missing"
	}
	if containsError(p.r.GetProblems(), l.GetName()) {
		st.Fill, st.Stroke = draw.LightRed, draw.Red
	}
	width := p.right - p.left
	p.Begin(subject + " " + l.GetMac())
	p.Box(p.left, p.y, width, 40, st)
	p.Text(p.left+12, p.y+17, draw.Font{Bold: true, Size: 13}, draw.Fit(title, 13, true, width/2-20))
	p.Text(p.left+12, p.y+33, draw.Font{Size: 11}, draw.Fit(strings.Join(addresses(l), ", "), 11, false, width-24))
	p.Text(p.right-12, p.y+17, draw.Font{Size: 11, Anchor: draw.End}, draw.Fit(details, 11, false, width/2-20))
	p.End()
	return p.y + 40
}

const (
	vethWidth  = 112
	vethCenter = 8 + vethWidth/2
	laneY      = 14 // of the line of the host ports, below the rail
	vethY      = 28 // of the interface of the host, below the rail
	vethHeight = 22
	arrowX     = vethWidth + 20 // of the arrow of the host ports, from the left edge of the pod
	portHeight = 14
	maxPorts   = 4
)

// row draws pods side by side and returns the lower edge of the row.
func (p *picture) row(g group, pods []*adminv1.NetworkPod, rail float64) float64 {
	top := rail + 12
	for _, pod := range pods {
		if all := interfaces(pod); g.bridge != nil || len(all) > 0 && all[0].GetHost() != nil {
			top = rail + vethY + vethHeight + 22
		}
	}
	for _, pod := range pods {
		if n := min(len(hostPorts(pod)), maxPorts); n > 0 {
			top = max(top, rail+vethY+4+float64(n)*portHeight+8)
		}
	}
	p.lane(pods, rail)
	bottom := top
	heights := make([]float64, len(pods))
	for i, pod := range pods {
		heights[i] = p.podHeight(pod)
		bottom = max(bottom, top+heights[i])
	}
	for i, pod := range pods {
		x := p.cellX(i)
		p.veth(g, pod, x, rail, top)
		p.ports(pod, x, rail, top)
		p.pod(pod, x, top, bottom-top)
	}
	return bottom
}

// lane draws the line of the host ports from the uplink to a row, if a pod of the row has a host port.
func (p *picture) lane(pods []*adminv1.NetworkPod, rail float64) {
	first := -1
	for i, pod := range pods {
		if len(hostPorts(pod)) > 0 {
			first = i
			break
		}
	}
	if first < 0 {
		return
	}
	st := draw.Style{Stroke: draw.Orange, Width: 1.5, Dashed: true}
	y := rail + laneY
	if p.portsY == 0 {
		const from = hostTop + 28
		p.Line(st, p.uplinkRight, from, p.portsX, from, p.portsX, y)
		p.Text(p.portsX-6, from-6, draw.Font{Size: 11, Bold: true, Color: draw.Orange, Anchor: draw.End}, "host ports")
	} else {
		p.Line(st, p.portsX, p.portsY, p.portsX, y)
	}
	p.portsY = y
	p.Line(st, p.portsX, y, p.cellX(first)+arrowX, y)
}

// veth draws the interface of the host, and its lines to the bridge and to the pod.
func (p *picture) veth(g group, pod *adminv1.NetworkPod, x, rail, top float64) {
	all := interfaces(pod)
	if len(all) == 0 || all[0].GetHost() == nil {
		return
	}
	i, host := all[0], all[0].GetHost()
	broken := containsError(pod.GetProblems(), host.GetName())
	line, box := draw.Style{Stroke: draw.Blue, Width: 2}, draw.Style{Fill: draw.Background, Stroke: draw.Blue, Radius: 3}
	if broken {
		line.Stroke, box.Stroke, box.Fill = draw.Red, draw.Red, draw.LightRed
	}
	toBridge, toPod := line, line
	toBridge.Dashed = i.GetPort() == nil
	toPod.Dashed = !i.GetLink().GetCarrier()
	center := x + vethCenter
	if g.bridge != nil && i.GetPort() != nil {
		p.Line(toBridge, center, rail, center, rail+vethY)
	}
	p.Line(toPod, center, rail+vethY+vethHeight, center, top)
	tip := fmt.Sprintf("%s: index %d, %s, MTU %d, %s", host.GetName(), host.GetIndex(), host.GetMac(), host.GetMtu(), host.GetState())
	p.Begin(tip)
	p.Box(x+8, rail+vethY, vethWidth, vethHeight, box)
	p.Text(center, rail+vethY+15, draw.Font{Size: 11, Anchor: draw.Middle}, draw.Fit(host.GetName(), 11, false, vethWidth-8))
	p.End()
}

// ports draws the arrow of the host ports of a pod and its labels.
func (p *picture) ports(pod *adminv1.NetworkPod, x, rail, top float64) {
	all := hostPorts(pod)
	if len(all) == 0 {
		return
	}
	color := draw.Orange
	p.Line(draw.Style{Stroke: color, Width: 1.5, Arrow: true}, x+arrowX, rail+laneY, x+arrowX, top)
	for i, h := range all {
		text := h.from
		if i == maxPorts-1 && len(all) > maxPorts {
			text = fmt.Sprintf("and %d more", len(all)-i)
		}
		if i == maxPorts {
			break
		}
		p.Text(x+arrowX+7, rail+vethY+12+float64(i)*portHeight, draw.Font{Size: 11, Color: color}, draw.Fit(text, 11, false, cellWidth-arrowX-7))
	}
}

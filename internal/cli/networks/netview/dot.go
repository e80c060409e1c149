package netview

import (
	"fmt"
	"io"
	"strings"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/draw"
)

// DOT writes the node as a graph in the language of Graphviz, for example for `dot -Tpng`.
func DOT(w io.Writer, r *adminv1.InspectNetworkResponse) error {
	d := &dot{}
	d.line(0, "graph network {")
	d.line(1, "graph [rankdir=TB, fontname=\"sans-serif\", bgcolor=%s, label=%s, labelloc=t, compound=true];", quote(string(draw.Background)), quote("Network of node "+r.GetHost().GetName()))
	d.line(1, "node [shape=box, style=\"rounded,filled\", fillcolor=%s, fontname=\"sans-serif\", fontsize=11];", quote(string(draw.Background)))
	d.line(1, "edge [fontname=\"sans-serif\", fontsize=10];")
	d.line(1, "others [label=\"other machines\", shape=ellipse, fillcolor=%s];", quote(string(draw.LightBlue)))
	d.host(r)
	for _, p := range r.GetPods() {
		d.pod(p)
	}
	d.line(0, "}")
	_, err := io.WriteString(w, d.b.String())
	return err
}

// dot collects the lines of a graph.
type dot struct{ b strings.Builder }

func (d *dot) line(indent int, format string, args ...any) {
	d.b.WriteString(strings.Repeat("\t", indent))
	fmt.Fprintf(&d.b, format, args...)
	d.b.WriteByte('\n')
}

// host writes the uplinks, masquerading and the bridges.
func (d *dot) host(r *adminv1.InspectNetworkResponse) {
	d.line(1, "subgraph cluster_host {")
	d.line(2, "label=%s; style=rounded; bgcolor=%s;", quote("host "+r.GetHost().GetName()), quote(string(draw.Panel)))
	lines := []string{"uplink"}
	for _, l := range r.GetHost().GetUplinks() {
		lines = append(append(lines, l.GetName()), addresses(l)...)
	}
	d.line(2, "uplink [label=%s];", quote(lines...))
	from := "uplink"
	if m := masquerades(r); len(m) > 0 {
		d.line(2, "masquerade [label=%s, fillcolor=%s];", quote(append([]string{"masquerading of"}, m...)...), quote(string(draw.LightGreen)))
		from = "masquerade"
	}
	for _, b := range r.GetBridges() {
		l := b.GetLink()
		color := ""
		if b.GetMissing() || containsError(r.GetProblems(), l.GetName()) {
			color = ", color=" + quote(string(draw.Red)) + ", fontcolor=" + quote(string(draw.Red))
		}
		d.line(2, "%s [label=%s, fillcolor=%s%s];", quote("bridge "+l.GetName()), quote(append([]string{"bridge " + l.GetName()}, addresses(l)...)...), quote(string(draw.LightBlue)), color)
	}
	d.line(1, "}")
	d.line(1, "others -- uplink;")
	if from != "uplink" {
		d.line(1, "uplink -- masquerade;")
	}
	for _, b := range r.GetBridges() {
		d.line(1, "%s -- %s;", from, quote("bridge "+b.GetLink().GetName()))
	}
}

// pod writes the namespace of a pod and its edges.
func (d *dot) pod(p *adminv1.NetworkPod) {
	color := draw.Text
	if hasError(p) {
		color = draw.Red
	}
	d.line(1, "subgraph %s {", quote("cluster_"+p.GetId()))
	title := []string{podName(p), ShortID(p.GetId())}
	if p.GetHostNetwork() {
		title = append(title, "network of the host")
	}
	if p.GetNotReadyReason() != "" {
		title = append(title, "not ready: "+p.GetNotReadyReason())
	}
	for _, text := range problemTexts(p) {
		title = append(title, draw.Wrap(text, 12, false, 300, 4)...)
	}
	d.line(2, "label=%s; style=rounded; color=%s; fontcolor=%s;", quote(title...), quote(string(color)), quote(string(color)))
	anchor := p.GetId() + " pod"
	all := interfaces(p)
	if len(all) == 0 {
		d.line(2, "%s [label=\"\", shape=point, style=invis];", quote(anchor))
	}
	for i, face := range all {
		node := p.GetId() + " " + face.GetLink().GetName()
		if i == 0 {
			anchor = node
		}
		d.line(2, "%s [label=%s];", quote(node), quote(append([]string{face.GetLink().GetName()}, addresses(face.GetLink())...)...))
	}
	for _, c := range p.GetContainers() {
		d.line(2, "%s [label=%s, fillcolor=%s];", quote(p.GetId()+" container "+c), quote(c), quote(string(draw.LightGreen)))
		d.line(2, "%s -- %s [style=invis];", quote(anchor), quote(p.GetId()+" container "+c))
	}
	d.line(1, "}")
	for _, face := range all {
		if b := face.GetPort().GetBridge(); b != "" {
			d.line(1, "%s -- %s [label=%s, color=%s];", quote("bridge "+b), quote(p.GetId()+" "+face.GetLink().GetName()), quote(face.GetHost().GetName()), quote(string(draw.Blue)))
		} else if face.GetHost() != nil {
			d.line(1, "uplink -- %s [label=%s, style=dashed];", quote(p.GetId()+" "+face.GetLink().GetName()), quote(face.GetHost().GetName()))
		}
	}
	var ports []string
	for _, h := range hostPorts(p) {
		ports = append(ports, h.from+" → port "+h.to)
	}
	if len(ports) > 0 {
		d.line(1, "uplink -- %s [dir=forward, label=%s, color=%s, fontcolor=%s];", quote(anchor), quote(ports...), quote(string(draw.Orange)), quote(string(draw.Orange)))
	}
}

// quote returns a string of the language DOT with lines.
func quote(lines ...string) string {
	escaped := make([]string, len(lines))
	for i, l := range lines {
		escaped[i] = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", " ", "\r", " ", "\x00", " ").Replace(l)
	}
	return `"` + strings.Join(escaped, `\n`) + `"`
}

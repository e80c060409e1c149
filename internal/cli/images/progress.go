package images

import (
	"fmt"
	"io"
	"os"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cli/command"
)

// newProgressDisplay returns a display with a bar for each layer if w is a terminal, and one with plain
// lines otherwise.
func newProgressDisplay(w io.Writer) progressDisplay {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return &progressBars{all: mpb.New(command.BarOptions(f)...), bars: make(map[string]*layerBar)}
	}
	return &progressLines{w: w, states: make(map[string]string)}
}

// barWidth is the maximum width of a bar in columns, without the text beside the bar.
const barWidth = 40

// stateNames are the words for the states of a layer.
var stateNames = map[string]string{"waiting": "waiting", "fetching": "downloading", "done": "done", "present": "exists"}

func stateName(state string) string {
	if name := stateNames[state]; name != "" {
		return name
	}
	return state
}

// progressLines writes a line when the state of a layer changes.
type progressLines struct {
	w      io.Writer
	source string
	states map[string]string // by digest
}

func (d *progressLines) show(p *adminv1.PullProgress) {
	if s := p.GetSource(); s != d.source && s != "" {
		d.source = s
		fmt.Fprintf(d.w, "pulling %s\n", s)
	}
	for _, l := range p.GetLayers() {
		if d.states[l.GetDigest()] == l.GetState() {
			continue
		}
		d.states[l.GetDigest()] = l.GetState()
		size := ""
		if l.GetTotal() > 0 {
			size = " " + command.ByteSize(uint64(l.GetTotal())) //nolint:gosec // greater than 0
		}
		fmt.Fprintf(d.w, "%s %s%s\n", command.ShortDigest(l.GetDigest()), stateName(l.GetState()), size)
	}
}

func (d *progressLines) finish() {}

// progressBars draws a bar for each layer.
type progressBars struct {
	all  *mpb.Progress
	bars map[string]*layerBar // by digest
}

// layerBar is the bar of a layer.
type layerBar struct {
	*mpb.Bar
	state chan string // has the last state
}

func (d *progressBars) show(p *adminv1.PullProgress) {
	for _, l := range p.GetLayers() {
		bar := d.bars[l.GetDigest()]
		if bar == nil {
			bar = d.add(l)
			d.bars[l.GetDigest()] = bar
		}
		<-bar.state
		bar.state <- stateName(l.GetState())
		if l.GetTotal() > 0 {
			bar.SetTotal(l.GetTotal(), false)
		}
		bar.SetCurrent(l.GetBytes())
	}
}

func (d *progressBars) add(l *adminv1.PullLayer) *layerBar {
	b := &layerBar{state: make(chan string, 1)}
	b.state <- stateName(l.GetState())
	state := func(decor.Statistics) string {
		s := <-b.state
		b.state <- s
		return s
	}
	b.Bar = d.all.New(max(0, l.GetTotal()), mpb.BarStyle(), mpb.BarWidth(barWidth),
		mpb.PrependDecorators(decor.Name(command.ShortDigest(l.GetDigest())+" "), decor.Any(state, decor.WC{W: 12})),
		mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f", decor.WCSyncSpace), decor.AverageSpeed(decor.SizeB1024(0), " % .1f")),
	)
	return b
}

// finish stops the bars in their last state.
func (d *progressBars) finish() {
	for _, b := range d.bars {
		b.Abort(false)
	}
	d.all.Wait()
}

package pull

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
	"go.podman.io/image/v5/types"
)

// Progress is how far a running pull has come. It holds no credentials.
type Progress struct {
	Image  string    `json:"image"`            // as asked for
	Source string    `json:"source,omitempty"` // where it is fetched from, perhaps a mirror
	Since  time.Time `json:"since"`
	// Callers wait for this pull. It is counted by whom it was begun for, who
	// knows it by Key.
	Callers int    `json:"callers"`
	Key     string `json:"-"`
	// Bytes are those that have come, of Total in the layers begun so far, as
	// compressed. Layers that the store had already count in neither.
	Bytes int64 `json:"bytes"`
	Total int64 `json:"total"`
	// Rate is in bytes a second, over the time since the last line in the log,
	// or since the pull began.
	Rate int64 `json:"bytesPerSecond"`
	// Idle is the time in seconds since a byte came.
	Idle   float64         `json:"idleSeconds"`
	Layers []LayerProgress `json:"layers,omitempty"`
}

// LayerProgress is how far one layer's blob has come.
type LayerProgress struct {
	Digest digest.Digest `json:"digest"`
	Bytes  int64         `json:"bytes"`
	Total  int64         `json:"total"` // -1 when the manifest does not say
	State  string        `json:"state"` // waiting, fetching, done, present
}

// States of a layer.
const (
	layerWaiting  = "waiting"
	layerFetching = "fetching"
	layerDone     = "done"
	layerPresent  = "present"
)

// jobs are the running pulls.
type jobs struct {
	mu  sync.Mutex // guards all
	all map[*job]struct{}
}

// job is one running pull.
type job struct {
	image string
	key   string
	since time.Time
	moved atomic.Int64 // when a byte came last, in ns of Unix time
	jobs  *jobs
	quit  chan struct{}
	gone  chan struct{} // closed when report has ended

	mu     sync.Mutex // guards what follows
	source string
	layers []*layerJob
	// mark and marked are the bytes and the time of the last line in the log.
	mark   int64
	marked time.Time
}

type layerJob struct {
	digest digest.Digest
	total  int64
	bytes  atomic.Int64
	state  string // guarded by the job's mu
}

// begin notes a pull; end must be called.
func (js *jobs) begin(ctx context.Context, req Request, interval time.Duration) *job {
	now := time.Now()
	j := &job{image: req.Ref, key: req.Key, since: now, marked: now, jobs: js, quit: make(chan struct{}), gone: make(chan struct{})}
	j.moved.Store(now.UnixNano())
	js.mu.Lock()
	defer js.mu.Unlock()
	if js.all == nil {
		js.all = make(map[*job]struct{})
	}
	js.all[j] = struct{}{}
	go j.report(ctx, interval)
	return j
}

func (j *job) end() {
	close(j.quit)
	<-j.gone
	j.jobs.mu.Lock()
	defer j.jobs.mu.Unlock()
	delete(j.jobs.all, j)
}

func (js *jobs) snapshot() []Progress {
	js.mu.Lock()
	running := slices.Collect(maps.Keys(js.all))
	js.mu.Unlock()
	all := make([]Progress, 0, len(running))
	for _, j := range running {
		all = append(all, j.progress())
	}
	slices.SortFunc(all, func(a, b Progress) int { return a.Since.Compare(b.Since) })
	return all
}

// report writes a line to the log now and then, so that a pull that takes long
// can be told from one that hangs.
func (j *job) report(ctx context.Context, interval time.Duration) {
	defer close(j.gone)
	if interval <= 0 {
		return
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-j.quit:
			return
		}
		p := j.progress()
		j.mu.Lock()
		j.mark, j.marked = p.Bytes, time.Now()
		j.mu.Unlock()
		logrus.WithContext(ctx).WithFields(logrus.Fields{
			"image": p.Image, "source": p.Source, "bytes": p.Bytes, "total": p.Total, "bytesPerSecond": p.Rate,
			"since": time.Since(p.Since).Round(time.Second).String(), "layers": inFlight(p.Layers),
		}).Info("pulling image")
	}
}

// inFlight shows the layers that are being fetched, as "digest bytes/total".
func inFlight(layers []LayerProgress) []string {
	shown := []string{}
	for _, l := range layers {
		if l.State == layerFetching {
			shown = append(shown, fmt.Sprintf("%.12s %d/%d", l.Digest.Encoded(), l.Bytes, l.Total))
		}
	}
	return shown
}

func (j *job) progress() Progress {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := time.Now()
	p := Progress{
		Image: j.image, Key: j.key, Source: j.source, Since: j.since,
		Idle: now.Sub(time.Unix(0, j.moved.Load())).Round(time.Millisecond).Seconds(),
	}
	for _, l := range j.layers {
		lp := LayerProgress{Digest: l.digest, Bytes: l.bytes.Load(), Total: l.total, State: l.state}
		p.Layers = append(p.Layers, lp)
		if l.state != layerPresent {
			p.Bytes += lp.Bytes
			p.Total += max(lp.Total, lp.Bytes)
		}
	}
	if d := now.Sub(j.marked).Seconds(); d > 0 {
		p.Rate = max(0, int64(float64(p.Bytes-j.mark)/d))
	}
	return p
}

// from notes the source that is tried now. What an earlier one has brought
// whole is found in the store.
func (j *job) from(source string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.source, j.layers, j.mark = source, nil, 0
}

// layer notes a layer of the image.
func (j *job) layer(info types.BlobInfo) *layerJob {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, l := range j.layers {
		if l.digest == info.Digest {
			return l
		}
	}
	l := &layerJob{digest: info.Digest, total: info.Size, state: layerWaiting}
	j.layers = append(j.layers, l)
	return l
}

// enter notes what becomes of a layer.
func (j *job) enter(l *layerJob, state string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	// A layer that is listed twice is fetched once, and then found.
	if l.state != layerDone {
		l.state = state
	}
}

// counted counts what is read of a layer's blob. The watch is told of each
// read: what comes slowly takes long to fill the pieces that are unpacked.
type counted struct {
	io.Reader
	target *target
	layer  *layerJob
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if n > 0 {
		c.layer.bytes.Add(int64(n))
		c.target.watch.add(n)
		c.target.job.moved.Store(time.Now().UnixNano())
	}
	return n, err
}

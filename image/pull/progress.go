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
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/types"
)

// Progress is the progress of a running pull. It has no credentials.
type Progress struct {
	Image  string    `json:"image"`            // the name in the request
	Source string    `json:"source,omitempty"` // the name at the pull source, which can be a mirror
	Since  time.Time `json:"since"`
	// Callers is the number of callers that wait for this pull. The caller of Running sets it, and
	// identifies the pull by Key.
	Callers int    `json:"callers"`
	Key     string `json:"-"`
	// Bytes is the number of compressed bytes received, and Total the number of compressed bytes
	// in the layers of the image. Layers that the pull has found in the store count in neither.
	Bytes int64 `json:"bytes"`
	Total int64 `json:"total"`
	// Rate is the number of bytes per second since the last log line, or since the pull began.
	Rate int64 `json:"bytesPerSecond"`
	// Idle is the time in seconds since the last byte was received.
	Idle   float64         `json:"idleSeconds"`
	Layers []LayerProgress `json:"layers,omitempty"`
}

// LayerProgress is the progress of one layer.
type LayerProgress struct {
	Digest digest.Digest `json:"digest"`
	Bytes  int64         `json:"bytes"`
	Total  int64         `json:"total"` // -1 if the manifest does not state the size
	State  string        `json:"state"` // waiting, fetching, done, present
}

// States of a layer.
const (
	layerWaiting  = "waiting"
	layerFetching = "fetching"
	layerDone     = "done"
	layerPresent  = "present"
)

// jobs is the set of running pulls.
type jobs struct {
	mu  sync.Mutex // guards all
	all map[*job]struct{}
}

// job is one running pull.
type job struct {
	image  string
	key    string
	action string // the message of the log lines
	since  time.Time
	jobs   *jobs
	// lastByte is the time of the last byte in nanoseconds of Unix time.
	lastByte atomic.Int64
	stop     chan struct{} // closed by end
	stopped  chan struct{} // closed when report has returned

	mu     sync.Mutex // guards the fields below
	source string
	layers []*layerJob
	// loggedBytes and loggedAt are the bytes and the time of the last log line.
	loggedBytes int64
	loggedAt    time.Time
}

// layerJob is the progress of one layer.
type layerJob struct {
	digest digest.Digest
	total  int64
	bytes  atomic.Int64
	state  string // guarded by the job's mu
}

// begin adds a pull. action describes it in log lines. The caller must call end.
func (js *jobs) begin(ctx context.Context, req Request, action string, interval time.Duration) *job {
	now := time.Now()
	j := &job{image: req.Ref, key: req.Key, action: action, since: now, loggedAt: now, jobs: js, stop: make(chan struct{}), stopped: make(chan struct{})}
	j.lastByte.Store(now.UnixNano())
	js.mu.Lock()
	defer js.mu.Unlock()
	if js.all == nil {
		js.all = make(map[*job]struct{})
	}
	js.all[j] = struct{}{}
	go j.report(ctx, interval)
	return j
}

// end removes the pull and stops its log lines.
func (j *job) end() {
	close(j.stop)
	<-j.stopped
	j.jobs.mu.Lock()
	defer j.jobs.mu.Unlock()
	delete(j.jobs.all, j)
}

// snapshot returns the progress of all pulls, the longest running first.
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

// report logs the progress at intervals, so that the log shows whether a pull that takes long
// receives data.
func (j *job) report(ctx context.Context, interval time.Duration) {
	defer close(j.stopped)
	if interval <= 0 {
		return
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-j.stop:
			return
		}
		p := j.progress()
		j.mu.Lock()
		j.loggedBytes, j.loggedAt = p.Bytes, time.Now()
		j.mu.Unlock()
		logrus.WithContext(ctx).WithFields(logrus.Fields{
			"image": p.Image, "source": p.Source, "bytes": p.Bytes, "total": p.Total, "bytesPerSecond": p.Rate,
			"since": time.Since(p.Since).Round(time.Second).String(), "layers": fetching(p.Layers),
		}).Info(j.action)
	}
}

// fetching formats the layers that are being fetched as "digest bytes/total".
func fetching(layers []LayerProgress) []string {
	texts := []string{}
	for _, l := range layers {
		if l.State == layerFetching {
			texts = append(texts, fmt.Sprintf("%.12s %d/%d", l.Digest.Encoded(), l.Bytes, l.Total))
		}
	}
	return texts
}

func (j *job) progress() Progress {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := time.Now()
	p := Progress{
		Image: j.image, Key: j.key, Source: j.source, Since: j.since,
		Idle: now.Sub(time.Unix(0, j.lastByte.Load())).Round(time.Millisecond).Seconds(),
	}
	for _, l := range j.layers {
		lp := LayerProgress{Digest: l.digest, Bytes: l.bytes.Load(), Total: l.total, State: l.state}
		p.Layers = append(p.Layers, lp)
		if l.state != layerPresent {
			p.Bytes += lp.Bytes
			p.Total += max(lp.Total, lp.Bytes)
		}
	}
	if d := now.Sub(j.loggedAt).Seconds(); d > 0 {
		p.Rate = max(0, int64(float64(p.Bytes-j.loggedBytes)/d))
	}
	return p
}

// startSource sets the pull source and forgets the layers of the source before. The layers that
// were completed from that source are in the store.
func (j *job) startSource(source string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.source, j.layers, j.loggedBytes = source, nil, 0
}

// expect adds the layers of a manifest, which wait for the pull. More layers than an image can have are
// not added, because such an image is refused.
func (j *job) expect(infos []manifest.LayerInfo) {
	if len(infos) > maxExpected {
		return
	}
	for _, info := range infos {
		j.layer(info.BlobInfo)
	}
}

// maxExpected is the number of layers up to which expect adds layers.
const maxExpected = 1000

// layer returns the progress of a layer, and adds it if necessary.
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

// setState sets the state of a layer.
func (j *job) setState(l *layerJob, state string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	// A layer that the manifest lists twice is fetched once and then present. It stays done.
	if l.state != layerDone {
		l.state = state
	}
}

// progressReader counts the bytes that are read of a layer. It reports each read to the watchdog,
// because a slow connection takes long to fill the chunks that are unpacked.
type progressReader struct {
	io.Reader
	dest  *destinationReference
	layer *layerJob
}

func (r progressReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 {
		r.layer.bytes.Add(int64(n))
		r.dest.totals.received.Add(uint64(n))
		r.dest.watch.addBytes(n)
		r.dest.job.lastByte.Store(time.Now().UnixNano())
	}
	return n, err
}

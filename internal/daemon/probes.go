package daemon

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go/features"
	"github.com/sirupsen/logrus"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/oci"
)

const (
	// probeTimeout bounds the first probe of a runtime handler. Later ones, after
	// a missed deadline, have twice the time of the one before.
	probeTimeout    = 2 * time.Minute
	maxProbeTimeout = 16 * time.Minute
	probePause      = 5 * time.Second
)

// probe is what the daemon found out about a runtime handler.
type probe struct {
	info     handlerInfo
	features *features.Features // nil where the runtime does not tell
	userNS   error              // why the handler cannot do user namespaces, or nil
	late     bool               // a deadline was missed, so that not everything is known
}

// prober probes one handler.
type prober struct {
	rt     *oci.Runtime
	first  chan struct{} // closed when the first probe has ended
	result atomic.Pointer[probe]
}

// await returns the newest result. It waits for the first one, which comes at
// the latest when the deadlines of its steps end.
func (p *prober) await() *probe {
	<-p.first
	return p.result.Load()
}

// handler returns the handler of a name; "" is the default one. Nil for none.
func (r *runtimes) handler(name string) *prober { return r.probers[cmp.Or(name, r.defaultName)] }

// run probes all handlers, beside the daemon's other work: a runtime may take
// long to answer, and no pod needs the answer but those that ask for a user
// namespace or for mount options. Only one trial runs at a time.
func (r *runtimes) run(ctx context.Context, try func(context.Context, *oci.Runtime, *features.Features, time.Duration) error) {
	turn := make(chan struct{}, 1)
	var wg sync.WaitGroup
	for _, p := range r.probers {
		wg.Go(func() { p.run(ctx, turn, try) })
	}
	wg.Wait()
}

func (p *prober) run(ctx context.Context, turn chan struct{}, try func(context.Context, *oci.Runtime, *features.Features, time.Duration) error) {
	for within := probeTimeout; ; within = min(2*within, maxProbeTimeout) {
		found := p.ask(ctx, within)
		turn <- struct{}{}
		found.userNS = try(ctx, p.rt, found.features, within)
		<-turn
		found.late = found.late || errors.Is(found.userNS, context.DeadlineExceeded)
		if found.userNS != nil {
			found.info.NoUserNamespaces = found.userNS.Error()
		}
		if p.result.Swap(found) == nil {
			close(p.first)
		}
		if !found.late || ctx.Err() != nil {
			return
		}
		logrus.WithContext(ctx).WithField("runtime", p.rt.Name).Warn("the probe of the OCI runtime did not end in time; the daemon tries again with more time")
		select {
		case <-ctx.Done():
			return
		case <-time.After(probePause):
		}
	}
}

// ask asks a runtime for its version and its features. A runtime that does not
// answer is listed without features. A version with known flaws is named in the
// log and not refused, because a refusal would end the pods that run on it.
func (p *prober) ask(ctx context.Context, within time.Duration) *probe {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	found := &probe{info: handlerInfo{Name: p.rt.Name, Path: p.rt.Path}}
	log := logrus.WithContext(ctx).WithFields(logrus.Fields{"runtime": p.rt.Name, "path": p.rt.Path})
	var err error
	if found.info.Version, err = p.rt.Version(ctx); err != nil {
		found.info.Error, found.late = err.Error(), ctx.Err() != nil
		log.WithError(err).Warn("OCI runtime does not tell its version")
		return found
	}
	if found.info.Flaw = oci.KnownFlaw(found.info.Version); found.info.Flaw != "" {
		log.WithField("version", found.info.Version).Warn(found.info.Flaw)
	}
	if found.features, err = p.rt.FeaturesOf(ctx, found.info.Version); err != nil {
		found.late = ctx.Err() != nil
		log.WithError(err).Debug("features of the OCI runtime")
	}
	return found
}

// mountOptions returns the mount options that a handler can set, or nil where
// its runtime does not tell.
func (r *runtimes) mountOptions(handler string) []string {
	p := r.handler(handler)
	if p == nil {
		return nil
	}
	found := p.await()
	if found.features == nil {
		return nil
	}
	return usableMountOptions(found.features.MountOptions)
}

// trial is the part of a probe that runs a container in a user namespace.
func (r *runtimes) trial(cfg config.Config, h *host) func(context.Context, *oci.Runtime, *features.Features, time.Duration) error {
	return func(ctx context.Context, rt *oci.Runtime, f *features.Features, within time.Duration) error {
		return r.tryUserNamespaces(ctx, cfg, h, rt, f, within)
	}
}

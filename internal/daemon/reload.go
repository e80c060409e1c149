package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/internal/daemon/handlers"
	"github.com/criserver/criserver/internal/daemon/telemetry"
	"github.com/criserver/criserver/sandbox"
	"github.com/criserver/criserver/server/admin"
)

// reloads serializes reloads and ends them when the daemon stops.
type reloads struct {
	ready    chan struct{}   // closed by allow
	slot     chan struct{}   // full while a reload runs
	ctx      context.Context //nolint:containedctx // ends when the daemon stops; set by begin
	cancel   context.CancelFunc
	managers *stage // for work that outlives the reload
}

func newReloads() reloads {
	return reloads{ready: make(chan struct{}), slot: make(chan struct{}, 1)}
}

// begin prepares reloads. ctx ends when the daemon stops.
func (r *reloads) begin(ctx context.Context, managers *stage) {
	r.ctx, r.cancel = context.WithCancel(ctx)
	r.managers = managers
}

// allow allows reloads. The daemon serves, so that the service manager has been notified of the
// end of the start and can be notified of reloads.
func (r *reloads) allow() { close(r.ready) }

// end cancels the running reload, waits for it, and allows no other.
func (r *reloads) end() {
	r.cancel()
	r.slot <- struct{}{}
}

// lock waits for the running reload. The returned context ends when ctx ends or the daemon stops.
func (r *reloads) lock(ctx context.Context) (_ context.Context, unlock func(), err error) {
	select {
	case r.slot <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	case <-r.ctx.Done():
		return nil, nil, fmt.Errorf("the daemon is stopping: %w", errdefs.ErrUnavailable)
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(r.ctx, cancel)
	return ctx, func() { stop(); cancel(); <-r.slot }, nil
}

// Reload waits until the daemon serves, and reloads the configuration: see parts.Reload.
func (d *Daemon) Reload(ctx context.Context) error {
	select {
	case <-d.serving:
		_, err := d.parts.Reload(ctx) // the result is in the log
		return err
	case <-ctx.Done():
		return fmt.Errorf("reload the configuration: the daemon does not serve: %w", context.Cause(ctx))
	}
}

// Reload reads the configuration and the files that it names again, and applies them to requests
// that begin after it. It waits until other reloads have ended. It implements admin.Reloader.
//
// Reload checks everything before it applies anything: if a value or a file is not valid, or the
// default runtime handler does not work, it changes nothing and returns an ErrInvalidArgument that
// names the file, the key and the rule. Another new handler that does not work makes only its own
// pods fail, and the result has its error. Keys that need a restart keep their values.
func (p *parts) Reload(ctx context.Context) (admin.ReloadResult, error) {
	select {
	case <-p.reloads.ready:
	default:
		return admin.ReloadResult{}, fmt.Errorf("reload the configuration: the daemon is starting: %w", errdefs.ErrUnavailable)
	}
	ctx, unlock, err := p.reloads.lock(ctx)
	if err != nil {
		return admin.ReloadResult{}, fmt.Errorf("reload the configuration: %w", err)
	}
	defer unlock()
	p.manager.NotifyReloading()
	result, err := p.reload(ctx)
	if err != nil {
		err = fmt.Errorf("reload the configuration: %w", err)
	}
	p.manager.NotifyReloaded(err)
	return result, err
}

// prepared is a new configuration that has been checked.
type prepared struct {
	live    *live
	metrics *telemetry.MetricsChange // nil if the metrics are off
	changes []config.Change
	// unavailable has an error for each new or changed handler whose runtime does not answer.
	unavailable []admin.SettingError
}

// reload prepares the new configuration and applies it.
func (p *parts) reload(ctx context.Context) (admin.ReloadResult, error) {
	next, err := p.prepare(ctx)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return admin.ReloadResult{}, err
	}
	logChanges(ctx, next.changes)
	result := reloadResult(next.changes)
	if result.Errors = append(next.unavailable, p.apply(ctx, next)...); len(result.Errors) > 0 {
		for _, e := range result.Errors {
			logrus.WithContext(ctx).WithError(e.Err).WithField("key", e.Key).Error("apply the new configuration")
		}
	}
	logrus.WithContext(ctx).WithFields(logrus.Fields{
		"changed": len(result.Changed), "needRestart": len(result.NeedRestart), "errors": len(result.Errors),
	}).Info("configuration reloaded")
	return result, nil
}

// reloadResult sorts changes by their effect and by key.
func reloadResult(changes []config.Change) (r admin.ReloadResult) {
	for _, c := range changes {
		change := admin.SettingChange{Key: c.Key, Old: c.Old, New: c.New}
		if c.Restart {
			r.NeedRestart = append(r.NeedRestart, change)
		} else {
			r.Changed = append(r.Changed, change)
		}
	}
	byKey := func(a, b admin.SettingChange) int { return cmp.Compare(a.Key, b.Key) }
	slices.SortFunc(r.Changed, byKey)
	slices.SortFunc(r.NeedRestart, byKey)
	return r
}

// prepare reads the configuration, makes its live settings, and checks everything that could make
// apply or later requests fail. It changes nothing that is in use.
func (p *parts) prepare(ctx context.Context) (*prepared, error) {
	loaded, err := p.load()
	if err != nil {
		return nil, err
	}
	before := p.live.Load()
	cfg, changes, err := before.settings.Reload(loaded)
	if err != nil {
		return nil, err
	}
	next, err := newLive(ctx, cfg, p.host, before)
	if err := errors.Join(err, p.images.CheckConfig(imageConfig(cfg))); err != nil {
		return nil, err
	}
	if err := p.pods.CheckSettings(next.podSettings()); err != nil {
		return nil, err
	}
	if err := handlers.CheckGuests(before.handlers, next.handlers, readyPods(p.pods.List())); err != nil {
		return nil, err
	}
	isConfigured := func(name string) bool { _, ok := cfg.Runtimes[name]; return ok }
	unavailable, err := next.handlers.ProbeAdded(ctx, p.trials.TestUserNamespaces, isConfigured)
	if err != nil {
		return nil, err
	}
	// The last step, because nothing closes the new socket after an error.
	change, err := p.prepareMetrics(before.settings.Metrics, cfg.Metrics)
	if err != nil {
		return nil, err
	}
	return &prepared{live: next, metrics: change, changes: changes, unavailable: handlerErrors(unavailable)}, nil
}

// readyPods returns the number of ready pods by the name of their runtime handler.
func readyPods(pods []*sandbox.Pod) map[string]int {
	users := make(map[string]int)
	for _, pod := range pods {
		if pod.Ready {
			users[pod.EffectiveHandler()]++
		}
	}
	return users
}

// handlerErrors returns the errors of handlers that are not available, with the keys of the handlers.
func handlerErrors(list []handlers.Unavailable) (failed []admin.SettingError) {
	for _, u := range list {
		failed = append(failed, admin.SettingError{Key: "runtimes." + u.Name + ".path", Err: u.Err})
	}
	return failed
}

// apply replaces the live settings. Containers get new handlers before pods do, and clients see
// the handlers last, so that a pod of a new handler can have containers at once. prepare has
// checked the settings, so an error means that a file has changed since.
func (p *parts) apply(ctx context.Context, checked *prepared) (failed []admin.SettingError) {
	next := checked.live
	cfg := next.settings
	for _, part := range []struct {
		key    string
		update func() error
	}{
		{"runtimes", func() error { return p.containers.Update(next.containerSettings()) }},
		{"cni", func() error { return p.pods.Update(ctx, next.podSettings()) }},
		{"image", func() error { return p.images.Update(imageConfig(cfg)) }},
		{"streaming", func() error { return p.streams.Update(cfg.Streaming.IdleTimeout, next.tls) }},
		{"metrics", func() error { return p.updateMetrics(checked.metrics) }},
		{"log_level", func() error { return setLogging(cfg) }},
	} {
		if err := part.update(); err != nil {
			failed = append(failed, admin.SettingError{Key: part.key, Err: err})
		}
	}
	p.live.Store(next)
	p.reloads.managers.run(func(ctx context.Context) error {
		next.handlers.RepeatProbes(ctx, p.trials.TestUserNamespaces)
		return nil
	})
	p.loadArchives()
	return failed
}

// logChanges logs the keys that differ. The configuration has no secrets: it names the files that
// have them.
func logChanges(ctx context.Context, changes []config.Change) {
	for _, c := range changes {
		log := logrus.WithContext(ctx).WithFields(logrus.Fields{"key": c.Key, "old": c.Old, "new": c.New})
		if c.Restart {
			log.Warn("the new value of the configuration key needs a restart of the daemon")
		} else {
			log.Info("configuration key changed")
		}
	}
}

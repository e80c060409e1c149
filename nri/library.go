package nri

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/log"
	"github.com/sirupsen/logrus"
)

// What the library keeps in variables of its own is set here: its log is handed
// to ours, once, as it is read without a lock from then on.
var (
	setLog = sync.OnceFunc(func() { log.Set(logger{}) })
	// quiet is for its beginning, when it calls the absence of WebAssembly, which
	// is how this is built, an error.
	quiet atomic.Bool
)

func setTimeouts(cfg Config) {
	adaptation.SetPluginRegistrationTimeout(cfg.RegistrationTimeout)
	adaptation.SetPluginRequestTimeout(cfg.RequestTimeout)
}

// logger hands on the library's log. What it says at info is for those who debug
// plugins, but that plugins come and go, which watcher tells.
type logger struct{}

func (logger) Debugf(ctx context.Context, format string, args ...any) {
	write(ctx, logrus.TraceLevel, format, args)
}

func (logger) Infof(ctx context.Context, format string, args ...any) {
	write(ctx, logrus.DebugLevel, format, args)
}

func (logger) Warnf(ctx context.Context, format string, args ...any) {
	write(ctx, logrus.WarnLevel, format, args)
}

func (logger) Errorf(ctx context.Context, format string, args ...any) {
	write(ctx, logrus.ErrorLevel, format, args)
}

func write(ctx context.Context, level logrus.Level, format string, args []any) {
	if !quiet.Load() {
		logOf(ctx).Logf(level, format, args...)
	}
}

// watcher learns from the library's metrics how many plugins there are, and
// which one an error came from.
type watcher struct{ m *Manager }

func (w watcher) RecordPluginInvocation(plugin, operation string, err error) {
	if err != nil {
		who := fmt.Sprintf("plugin %q, %s", plugin, operation)
		w.m.failed.Store(&who)
	}
}

func (w watcher) RecordPluginLatency(plugin, operation string, latency time.Duration) {
	logOf(context.Background()).Tracef("plugin %q answered %s in %s", plugin, operation, latency)
}

func (watcher) RecordPluginAdjustments(string, string, *adaptation.ContainerAdjustment, int, int) {}

// UpdatePluginCount is called by the library whenever it looked, most often
// with what is known already.
func (w watcher) UpdatePluginCount(count int) {
	if before := w.m.plugins.Swap(int32(count)); int(before) != count {
		logOf(context.Background()).WithField("plugins", count).Info("plugins came or went")
	}
}

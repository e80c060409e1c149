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

// The NRI library has global variables for its logger and its timeouts.
var (
	// installLogger sets the logger of the library. It does so only once, because the
	// library reads its logger without a lock.
	installLogger = sync.OnceFunc(func() { log.Set(logger{}) })
	// suppressLog suppresses the log while New creates the adaptation. The library then
	// logs an error because it was built without support for WebAssembly.
	suppressLog atomic.Bool
)

func setTimeouts(cfg Config) {
	adaptation.SetPluginRegistrationTimeout(cfg.RegistrationTimeout)
	adaptation.SetPluginRequestTimeout(cfg.RequestTimeout)
}

// logger passes the log of the library to logrus at lower levels. The entries at info level
// help only to debug plugins; pluginMetrics logs when plugins connect and disconnect.
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
	if !suppressLog.Load() {
		logOf(ctx).Logf(level, format, args...)
	}
}

// pluginMetrics receives the metrics of the library: the number of plugins, and the plugin
// that caused an error.
type pluginMetrics struct{ m *Manager }

func (p pluginMetrics) RecordPluginInvocation(plugin, operation string, err error) {
	if err != nil {
		call := fmt.Sprintf("plugin %q, %s", plugin, operation)
		p.m.failedCall.Store(&call)
		if o := p.m.cfg.Observer; o != nil {
			o.PluginFailed(plugin, operation, err)
		}
	}
}

func (p pluginMetrics) RecordPluginLatency(plugin, operation string, latency time.Duration) {
	logOf(context.Background()).Tracef("plugin %q answered %s in %s", plugin, operation, latency)
	if o := p.m.cfg.Observer; o != nil {
		o.PluginAnswered(plugin, operation, latency)
	}
}

func (pluginMetrics) RecordPluginAdjustments(string, string, *adaptation.ContainerAdjustment, int, int) {
}

// UpdatePluginCount is called by the library often, and mostly with an unchanged count.
func (p pluginMetrics) UpdatePluginCount(count int) {
	if o := p.m.cfg.Observer; o != nil {
		o.PluginsConnected(count)
	}
	if before := p.m.plugins.Swap(int32(count)); int(before) != count {
		logOf(context.Background()).WithField("plugins", count).Info("the number of connected plugins changed")
	}
}

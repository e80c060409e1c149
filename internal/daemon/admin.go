package daemon

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/daemon/listen"
	"github.com/criserver/criserver/server/admin"
)

// startTimes contains the times of the start of the daemon.
type startTimes struct {
	begin   time.Time    // when Run was called
	serving atomic.Int64 // time from begin until the daemon accepted requests, in nanoseconds
}

func (t *startTimes) setServing() { t.serving.Store(int64(time.Since(t.begin))) }

// duration returns the duration of the start, or 0 if the daemon does not accept requests yet.
func (t *startTimes) duration() time.Duration { return time.Duration(t.serving.Load()) }

func (p *parts) adminConfig() admin.Config {
	return admin.Config{
		Version: &adminv1.GetVersionResponse{
			Version: p.version, Commit: p.commit, GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		},
		Status:   p.adminStatus,
		Settings: p.adminSettings, Timelines: p.timelines,
		Reloader: p,
		Pods:     p.pods, Containers: p.containers, Cgroups: p.host.cgroups,
		Networks: p.pods, Images: p.images, ImageChecker: p,
	}
}

// serveAdmin starts the server of the administration API, and returns a function that ends
// the server. If the server cannot run, the daemon serves the CRI nevertheless.
func (p *parts) serveAdmin(ctx context.Context) (stop func()) {
	l, err := listen.Admin(p.settings)
	if err != nil {
		logrus.WithError(err).Error("the administration API is not available")
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := p.admin.Serve(ctx, l); err != nil {
			logrus.WithError(err).Error("the administration API is not available any more")
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// adminSettings returns the configuration in effect.
func (p *parts) adminSettings() []*adminv1.Setting {
	var list []*adminv1.Setting
	for _, s := range p.live.Load().settings.Settings() {
		list = append(list, &adminv1.Setting{Key: s.Key, Value: s.Value})
	}
	return list
}

package network

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/steps"
	"github.com/sirupsen/logrus"
)

// statusTimeout bounds the answers of all plugins to STATUS. After a timeout the plugins are asked
// again with more time.
const statusTimeout = time.Minute

// statusAnswer is the answer of the plugins of a configuration to STATUS.
type statusAnswer struct {
	conf *loaded
	err  error // nil if the plugins of the default network can attach pods
	// handlers has the same for the default networks of runtime handlers.
	handlers map[string]error
	time     time.Time
}

// ready reports whether the plugins of all networks can attach pods.
func (a *statusAnswer) ready() bool {
	ready := a.err == nil
	for _, err := range a.handlers {
		ready = ready && err == nil
	}
	return ready
}

// timedOut reports whether plugins did not answer in time.
func (a *statusAnswer) timedOut() bool {
	timedOut := errors.Is(a.err, context.DeadlineExceeded)
	for _, err := range a.handlers {
		timedOut = timedOut || errors.Is(err, context.DeadlineExceeded)
	}
	return timedOut
}

// Info describes the default network for the operator.
type Info struct {
	Name          string         // "" if there is no network
	File          string         // "" if the network has no file
	DefaultBridge *DefaultBridge // nil unless pods use the default bridge
	StatusTime    time.Time      // when the plugins last answered STATUS; zero if they have not yet
	StatusError   error          // the error of this answer
}

// Info returns the default network and the last answer of its plugins to STATUS.
func (n *Network) Info() Info {
	l := n.loaded.Load()
	if l.list == nil {
		return Info{}
	}
	i := Info{Name: l.list.conf.Name, File: l.list.file, DefaultBridge: l.list.defaultBridge}
	if a := n.answer.Load(); a != nil && a.conf == l {
		i.StatusTime, i.StatusError = a.time, a.err
	}
	return i
}

// Status returns nil if pods can be attached to the default network. Otherwise the error gives the reason and says what
// to do. A network is not ready before its plugins have answered STATUS.
func (n *Network) Status() error {
	l := n.loaded.Load()
	if l.err != nil {
		return l.err
	}
	if err := n.findPlugins(l.list); err != nil {
		return err
	}
	a := n.answer.Load()
	if a == nil || a.conf != l {
		return notAnswered(l.list)
	}
	return a.err
}

// WaitChecked waits until Run has loaded the configuration and has asked the plugins for their status. Afterwards the
// result of Status does not depend on the speed of the machine. The error is the cause of the end of ctx.
func (n *Network) WaitChecked(ctx context.Context) (err error) {
	select {
	case <-n.loaded.Load().checked:
	default:
		_, step := steps.Start(ctx, steps.NetworkWait)
		defer step.EndWith(&err)
	}
	for {
		l := n.loaded.Load()
		select {
		case <-l.checked:
		case <-ctx.Done():
			return fmt.Errorf("wait for the checks of the CNI network: %w", context.Cause(ctx))
		}
		if n.loaded.Load() == l {
			return nil
		}
	}
}

// statusQuery asks the plugins for their status in a goroutine, because a slow answer must not
// delay the loading of a new configuration.
type statusQuery struct {
	answers chan statusAnswer // nil while no query runs
	cancel  context.CancelFunc
}

func (q *statusQuery) running() bool { return q.answers != nil }

// start starts the goroutine. stop waits for its end.
func (q *statusQuery) start(ctx context.Context, ask func(context.Context) statusAnswer) {
	ctx, cancel := context.WithCancel(ctx)
	answers := make(chan statusAnswer, 1)
	q.answers, q.cancel = answers, cancel
	go func() { answers <- ask(ctx) }()
}

// stop cancels a running query.
func (q *statusQuery) stop() {
	if q.running() {
		q.cancel()
		<-q.answers
		q.finish()
	}
}

// finish must be called when the answer has been received.
func (q *statusQuery) finish() {
	q.cancel()
	q.answers = nil
}

// startQuery starts a query for the current configuration if all plugins of a network are installed.
func (c *checker) startQuery(ctx context.Context) {
	l := c.n.loaded.Load()
	notReady := l.err
	if notReady == nil {
		notReady = c.n.findPlugins(l.list)
	}
	if notReady != nil {
		c.ready, c.statusDue = false, time.Now().Add(retryInterval)
		if len(l.handlerLists()) == 0 {
			l.markChecked()
			return
		}
	}
	timeout := doubled(statusTimeout, c.statusTimeouts)
	c.query.start(ctx, func(ctx context.Context) statusAnswer {
		a := statusAnswer{conf: l, err: notReady, handlers: c.n.askHandlers(ctx, l, timeout)}
		if notReady == nil {
			a.err = c.n.askStatus(ctx, l.list, timeout)
		}
		return a
	})
}

// handleAnswer stores the answer of the plugins. After one timeout the earlier answer stays valid,
// because a late answer on a machine under load has no meaning. After a second timeout in a row,
// which is longer, the network is not ready.
func (c *checker) handleAnswer(ctx context.Context, a statusAnswer) {
	c.query.finish()
	c.statusDue = time.Now().Add(retryInterval)
	if ctx.Err() != nil {
		return
	}
	if a.timedOut() {
		c.statusTimeouts++
		logrus.WithContext(ctx).WithError(a.err).Warn("timeout of CNI STATUS; the daemon asks again with more time")
	} else {
		c.statusTimeouts = 0
	}
	if c.statusTimeouts != 1 || !c.ready && !c.handlerReady {
		a.time = time.Now()
		c.n.answer.Store(&a)
		c.ready, c.handlerReady = a.err == nil, false
		for _, err := range a.handlers {
			c.handlerReady = c.handlerReady || err == nil
		}
	}
	if a.ready() && c.statusTimeouts == 0 {
		c.statusDue = time.Now().Add(checkInterval)
	}
	a.conf.markChecked()
}

// askStatus asks the plugins of a list whether they can attach pods, if the version of the
// configuration supports STATUS. The error is context.DeadlineExceeded if the plugins have not
// answered before the timeout.
func (n *Network) askStatus(ctx context.Context, l *list, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := n.cni().GetStatusNetworkList(ctx, n.executable(l))
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("CNI network %q is not ready yet: its plugins have not answered STATUS within %s: %w: %w",
			l.conf.Name, timeout, ctx.Err(), errdefs.ErrUnavailable)
	}
	return fmt.Errorf("CNI network %q reports that it is not ready (code %d): %w: %w", l.conf.Name, code(err), err, errdefs.ErrUnavailable)
}

package network

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"
)

// inquiry asks the plugins for their status beside the loop of Run: a slow
// answer must not delay the reading of a new configuration.
type inquiry struct {
	answers chan answer // nil while no inquiry runs
	cancel  context.CancelFunc
}

func (i *inquiry) running() bool { return i.answers != nil }

// start asks in a goroutine that stop waits for.
func (i *inquiry) start(ctx context.Context, ask func(context.Context) answer) {
	ctx, cancel := context.WithCancel(ctx)
	answers := make(chan answer, 1)
	i.answers, i.cancel = answers, cancel
	go func() { answers <- ask(ctx) }()
}

// stop ends an inquiry whose answer nobody needs any more.
func (i *inquiry) stop() {
	if i.running() {
		i.cancel()
		<-i.answers
		i.end()
	}
}

// end is called after the answer was received.
func (i *inquiry) end() {
	i.cancel()
	i.answers = nil
}

// ask starts an inquiry of the current configuration, if its plugins are there.
func (r *rounds) ask(ctx context.Context) {
	l := r.n.loaded.Load()
	if l.err != nil || r.n.findPlugins(l.list) != nil {
		r.ready, r.statusAt = false, time.Now().Add(recheck)
		l.settle()
		return
	}
	within := longer(statusTimeout, r.missed)
	r.inquiry.start(ctx, func(ctx context.Context) answer { return answer{l, r.n.askStatus(ctx, l.list, within)} })
}

// answered takes the answer of the plugins. If they have missed the deadline
// once, an earlier answer is kept: on a machine under load a late answer means
// nothing. If they miss the next deadline too, which is longer, the network is
// not ready.
func (r *rounds) answered(ctx context.Context, a answer) {
	r.inquiry.end()
	r.statusAt = time.Now().Add(recheck)
	if ctx.Err() != nil {
		return
	}
	if errors.Is(a.err, context.DeadlineExceeded) {
		r.missed++
		logrus.WithContext(ctx).WithError(a.err).Warn("the daemon asks for the status of the CNI network again, with more time")
	} else {
		r.missed = 0
	}
	if r.missed != 1 || !r.ready {
		r.n.answer.Store(&a)
		r.ready = a.err == nil
	}
	if r.ready && r.missed == 0 {
		r.statusAt = time.Now().Add(statusEvery)
	}
	a.of.settle()
}

// askStatus asks the plugins of a list whether they can attach pods, if the
// version of the configuration knows that question. The error is
// context.DeadlineExceeded when they have not answered within the given time.
func (n *Network) askStatus(ctx context.Context, l *list, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	err := n.cni.GetStatusNetworkList(ctx, l.conf)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("CNI network %q is not ready yet: its plugins have not answered STATUS within %s: %w: %w",
			l.conf.Name, within, ctx.Err(), errdefs.ErrUnavailable)
	}
	return fmt.Errorf("CNI network %q says that it is not ready (code %d): %w: %w", l.conf.Name, code(err), err, errdefs.ErrUnavailable)
}

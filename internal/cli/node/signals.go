package node

import (
	"context"
	"os"
	"os/signal"
	"sync"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// signalTarget is the part of a daemon that signals use.
type signalTarget interface {
	Reload(context.Context) error
	DumpStacks()
}

// handleSignals handles the signals that do not stop the daemon, until the caller calls stop.
// SIGHUP reloads the configuration. Several SIGHUP during one reload cause one more reload.
// SIGUSR1 writes the stacks of all goroutines. SIGUSR2 and SIGPIPE have no effect: because SIGPIPE
// is handled, a write to a log pipe without a reader returns an error, and the daemon continues
// without a log (see os/signal). No signal is ignored, because children, and so the commands in
// containers, would inherit the ignored signals.
func handleSignals(ctx context.Context, d signalTarget) (stop func()) {
	// The signals must not end a daemon that is stopping, so the handlers outlive ctx.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var all sync.WaitGroup
	handle := func(action func(os.Signal), handled ...os.Signal) {
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, handled...)
		all.Go(func() {
			defer signal.Stop(signals)
			for {
				select {
				case sig := <-signals:
					action(sig)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	handle(func(os.Signal) { reload(ctx, d) }, unix.SIGHUP)
	handle(func(os.Signal) { d.DumpStacks() }, unix.SIGUSR1)
	handle(func(sig os.Signal) {
		if sig != unix.SIGPIPE { // writing to the log would cause the next SIGPIPE
			logrus.WithField("signal", unix.SignalName(sig.(unix.Signal))).Info("signal has no effect")
		}
	}, unix.SIGUSR2, unix.SIGPIPE)
	return func() { cancel(); all.Wait() }
}

// reload reloads the configuration and logs the error.
func reload(ctx context.Context, d signalTarget) {
	if err := d.Reload(ctx); err != nil && ctx.Err() == nil {
		logrus.WithError(err).Error("the daemon keeps its configuration")
	}
}

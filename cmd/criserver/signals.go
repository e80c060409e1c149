package main

import (
	"os"
	"os/signal"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// tolerateSignals handles signals that would end the daemon by default. The kernel sends
// SIGHUP when a terminal closes, and administrators send it to reload a configuration.
// Because SIGPIPE is handled, a write to a log pipe without a reader returns an error, and
// the daemon continues without a log (see os/signal). The signals are not ignored, because
// children, and so the commands in containers, inherit ignored signals.
func tolerateSignals() (stop func()) {
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, unix.SIGHUP, unix.SIGPIPE, unix.SIGUSR1, unix.SIGUSR2)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for sig := range caught {
			if sig != unix.SIGPIPE { // the log would cause the next one
				logrus.WithField("signal", unix.SignalName(sig.(unix.Signal))).Info("signal has no effect: the configuration is read at the start")
			}
		}
	}()
	return func() {
		signal.Stop(caught)
		close(caught)
		<-ended
	}
}

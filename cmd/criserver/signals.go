package main

import (
	"os"
	"os/signal"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// tolerateSignals keeps signals from ending the daemon that do so by default and
// are not meant to: SIGHUP comes when a terminal closes, and administrators send
// it to have a configuration read again. With SIGPIPE handled, a write to a log
// pipe that nobody reads any more fails, and the daemon goes on without a log
// (os/signal). The signals are handled, not ignored: children inherit ignored
// signals, and with them the commands that run in containers.
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

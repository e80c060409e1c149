package cli

import (
	"context"
	"os"
	"os/signal"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// stopContext returns a context that ends with the first SIGTERM or SIGINT. The second of these
// signals ends the process at once.
func stopContext() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	go func() {
		<-signals
		cancel()
		endBySignal((<-signals).(unix.Signal))
	}()
	return ctx
}

// endBySignal ends the process as the default action of the signal does, so that the service
// manager and shells see a process that a signal has ended, and not an exit status. Containers
// and their monitors continue to run, and the next daemon completes or undoes the operations in
// progress.
func endBySignal(sig unix.Signal) {
	logrus.WithField("signal", unix.SignalName(sig)).Warn("second signal: the process ends without waiting for the operations in progress")
	signal.Reset(sig)
	_ = unix.Kill(os.Getpid(), sig) // fails only for invalid arguments
	// A process that was started with the signal ignored continues.
	time.Sleep(time.Second)
	os.Exit(128 + int(sig)) //nolint:forbidigo // main waits for the operations in progress
}

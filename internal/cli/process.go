package cli

import (
	"os"
	"os/signal"
	"runtime/debug"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// umask is the umask of the daemon. It replaces the umask that the daemon was started with. Users of
// containers must be able to read files that the daemon creates for containers, such as hosts
// files and working directories. Monitors, OCI runtimes, commands of exec, CNI plugins and
// hooks inherit the umask.
const umask = 0o022

// limitMemory makes the garbage collector run when the heap has grown by 50 percent instead
// of Go's default of 100 percent, because the daemon shares its node with the containers.
// The environment variable GOGC takes precedence.
func limitMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

// tolerateSignals handles signals that would end the daemon by default. The kernel sends
// SIGHUP when a terminal closes, and administrators send it to reload a configuration.
// Because SIGPIPE is handled, a write to a log pipe without a reader returns an error, and
// the daemon continues without a log (see os/signal). The signals are not ignored, because
// children, and so the commands in containers, inherit ignored signals.
func tolerateSignals() (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGHUP, unix.SIGPIPE, unix.SIGUSR1, unix.SIGUSR2)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sig := range signals {
			if sig != unix.SIGPIPE { // writing to the log would cause the next SIGPIPE
				logrus.WithField("signal", unix.SignalName(sig.(unix.Signal))).Info("signal has no effect: the daemon reads its configuration only when it starts")
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		<-done
	}
}

package daemon

import (
	"fmt"
	"os"

	"github.com/go-logr/logr/funcr"
	"github.com/sirupsen/logrus"
	"k8s.io/klog/v2"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/server/rpc"
)

const timestampFormat = "2006-01-02T15:04:05.000000Z07:00"

// ConfigureLogging configures the standard logger of logrus, which all packages use, and
// the logger of the Kubernetes libraries. It must be called once, before anything is logged.
func ConfigureLogging(settings config.Config) error {
	logrus.SetOutput(os.Stderr)
	logrus.AddHook(rpcHook{})
	if err := setLogging(settings); err != nil {
		return err
	}
	// The streaming library logs errors that the client caused, or that the caller of the
	// library logs with more context. At debug level they do not fill the log.
	klog.SetLogger(funcr.New(func(_, args string) { logrus.WithField("part", "streaming").Debug(args) }, funcr.Options{}))
	return nil
}

// setLogging sets the level and the format of the log.
func setLogging(settings config.Config) error {
	level, err := logrus.ParseLevel(settings.LogLevel)
	if err != nil {
		return fmt.Errorf("log_level: %w", err)
	}
	logrus.SetLevel(level)
	if settings.LogFormat == "json" {
		logrus.SetFormatter(&logrus.JSONFormatter{TimestampFormat: timestampFormat})
	} else {
		logrus.SetFormatter(&logrus.TextFormatter{FullTimestamp: true, TimestampFormat: timestampFormat, DisableColors: true})
	}
	return nil
}

// rpcHook adds the name of the CRI call to the log entries of the call.
type rpcHook struct{}

func (rpcHook) Levels() []logrus.Level { return logrus.AllLevels }

func (rpcHook) Fire(e *logrus.Entry) error {
	if e.Context == nil {
		return nil
	}
	if name := rpc.Name(e.Context); name != "" {
		e.Data["rpc"] = name
	}
	return nil
}

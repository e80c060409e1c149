package main

import (
	"github.com/go-logr/logr/funcr"
	"github.com/sirupsen/logrus"
	"k8s.io/klog/v2"

	"github.com/criserver/criserver/server"
)

// rpcHook adds to each entry the CRI call in whose course it was written.
type rpcHook struct{}

func (rpcHook) Levels() []logrus.Level { return logrus.AllLevels }

func (rpcHook) Fire(e *logrus.Entry) error {
	if e.Context == nil {
		return nil
	}
	if rpc := server.RPC(e.Context); rpc != "" {
		e.Data["rpc"] = rpc
	}
	return nil
}

// tameLibraries gives the log of the streaming protocols a place. What goes
// wrong there is the client's or is logged by whoever knows more about it.
func tameLibraries() {
	klog.SetLogger(funcr.New(func(_, args string) { logrus.WithField("part", "streaming").Debug(args) }, funcr.Options{}))
}

package main

import (
	"github.com/sirupsen/logrus"

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

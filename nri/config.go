package nri

import (
	"errors"
	"time"
)

// Config is what a Manager works with.
type Config struct {
	// Socket is where plugins connect; "" for none, then only those in PluginDir
	// are run.
	Socket string
	// PluginDir has plugins to be started with the daemon, named NN-name;
	// PluginConfigDir their configuration, in NN-name.conf or name.conf.
	PluginDir, PluginConfigDir string
	// RegistrationTimeout is how long a plugin that connected may take to
	// introduce itself, RequestTimeout how long it may take to answer.
	RegistrationTimeout, RequestTimeout time.Duration
	// Validator are rules about what plugins may change; nil for none.
	Validator *Rules
	// Name and Version are what plugins are told of the runtime.
	Name, Version string
	Runtime       Runtime
}

// Rules are those of NRI's own validator, which has its say after all plugins.
type Rules struct {
	RejectHooks, RejectNamespaces, RejectSysctls bool
	// RejectSeccomp are kinds of profile that may not be changed, by the names
	// below.
	RejectSeccomp []string
	// RequiredPlugins must be connected, or no container is made, but for those
	// of pods with the annotation TolerateMissing: "true".
	RequiredPlugins []string
	TolerateMissing string
}

// The kinds of seccomp profile in Rules.RejectSeccomp.
const (
	SeccompRuntimeDefault = "runtime-default"
	SeccompLocalhost      = "localhost"
	SeccompUnconfined     = "unconfined"
)

func (c Config) check() error {
	if c.RegistrationTimeout <= 0 || c.RequestTimeout <= 0 {
		return errors.New("nri: the timeouts must be greater than 0")
	}
	if c.Runtime == nil {
		return errors.New("nri: a runtime must be given")
	}
	return nil
}

package nri

import (
	"errors"
	"slices"
	"time"

	validator "github.com/containerd/nri/plugins/default-validator/builtin"
)

// Config configures a Manager.
type Config struct {
	// Socket is the path of the socket to which plugins connect. If it is empty, only the
	// plugins in PluginDir run.
	Socket string
	// PluginDir is a directory with plugins that Start runs: executable files named
	// NN-name. PluginConfigDir contains their configuration: NN-name.conf or name.conf.
	PluginDir, PluginConfigDir string
	// RegistrationTimeout is the maximum time between the connection of a plugin and its
	// registration. RequestTimeout is the maximum time in which a plugin must answer.
	RegistrationTimeout, RequestTimeout time.Duration
	// Validator contains rules for the changes of plugins; nil if there are none.
	Validator *Rules
	// Name and Version of the runtime are sent to plugins.
	Name, Version string
	Runtime       Runtime
	// Observer is notified of the requests to plugins, for metrics. It can be nil.
	Observer Observer
}

// Observer is notified of the requests to plugins. Its methods must not wait.
type Observer interface {
	// PluginAnswered is called after each request with the time that the plugin took. PluginFailed is also called if the
	// request failed.
	PluginAnswered(plugin, event string, d time.Duration)
	PluginFailed(plugin, event string, err error)
	// PluginsConnected is called when the number of connected plugins may have changed.
	PluginsConnected(n int)
}

// Rules configures the validator of the NRI library, which checks the result after all plugins
// have answered.
type Rules struct {
	RejectHooks, RejectNamespaces, RejectSysctls bool
	// RejectSeccomp contains the kinds of seccomp profiles that plugins may not change.
	RejectSeccomp []string
	// RequiredPlugins are the names of plugins without which no container is created,
	// except in pods that have the annotation TolerateMissing with the value "true".
	RequiredPlugins []string
	TolerateMissing string
}

// The kinds of seccomp profiles in Rules.RejectSeccomp.
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
		return errors.New("nri: the config contains no runtime")
	}
	return nil
}

// validatorConfig returns the rules in the form of the NRI library.
func (r *Rules) validatorConfig() *validator.DefaultValidatorConfig {
	if r == nil {
		return nil
	}
	return &validator.DefaultValidatorConfig{
		Enable:                                true,
		RejectOCIHookAdjustment:               r.RejectHooks,
		RejectNamespaceAdjustment:             r.RejectNamespaces,
		RejectSysctlAdjustment:                r.RejectSysctls,
		RejectRuntimeDefaultSeccompAdjustment: slices.Contains(r.RejectSeccomp, SeccompRuntimeDefault),
		RejectCustomSeccompAdjustment:         slices.Contains(r.RejectSeccomp, SeccompLocalhost),
		RejectUnconfinedSeccompAdjustment:     slices.Contains(r.RejectSeccomp, SeccompUnconfined),
		RequiredPlugins:                       r.RequiredPlugins,
		TolerateMissingAnnotation:             r.TolerateMissing,
	}
}

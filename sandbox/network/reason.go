package network

// The reasons why pods cannot be attached to the default network, for metrics. Status returns the complete error.
const (
	ReasonNotLoaded     = "not_loaded"       // the configuration is not loaded yet
	ReasonNoNetwork     = "no_configuration" // the configuration directories have no file
	ReasonInvalid       = "invalid_configuration"
	ReasonPluginMissing = "plugin_missing"   // the binary of a plugin is not installed
	ReasonChecking      = "checking"         // the plugins have not answered STATUS yet
	ReasonPlugin        = "plugin_not_ready" // a plugin reports that it is not ready
)

// Reasons returns all reasons.
func Reasons() []string {
	return []string{ReasonNotLoaded, ReasonNoNetwork, ReasonInvalid, ReasonPluginMissing, ReasonChecking, ReasonPlugin}
}

// Reason returns the reason of the error of Status, or "" if pods can be attached.
func (n *Network) Reason() string {
	l := n.loaded.Load()
	switch a := n.answer.Load(); {
	case l.err != nil && !l.read:
		return ReasonNotLoaded
	case l.err != nil && l.empty:
		return ReasonNoNetwork
	case l.err != nil:
		return ReasonInvalid
	case n.findPlugins(l.list) != nil:
		return ReasonPluginMissing
	case a == nil || a.conf != l:
		return ReasonChecking
	case a.err != nil:
		return ReasonPlugin
	}
	return ""
}

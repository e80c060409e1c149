package network

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/containernetworking/cni/libcni"
	"github.com/sirupsen/logrus"
)

// idleOptions has the options with which the plugins bandwidth and portmap do nothing unless a pod
// uses a capability. If a configuration has any other option, such as a rate or a runtimeConfig,
// the plugin must run.
type idleOptions struct {
	CNIVersion   string          `json:"cniVersion"`
	Name         string          `json:"name"`
	Type         string          `json:"type"`
	Capabilities map[string]bool `json:"capabilities"`
}

// idlePortmapOptions also has the options of portmap that say how ports are mapped, and not which ports.
type idlePortmapOptions struct {
	idleOptions
	Backend              json.RawMessage `json:"backend"`
	SNAT                 json.RawMessage `json:"snat"`
	ConditionsV4         json.RawMessage `json:"conditionsV4"`
	ConditionsV6         json.RawMessage `json:"conditionsV6"`
	MasqAll              json.RawMessage `json:"masqAll"`
	MarkMasqBit          json.RawMessage `json:"markMasqBit"`
	ExternalSetMarkChain json.RawMessage `json:"externalSetMarkChain"`
}

// decodeStrict decodes a configuration into v. It reports false if the configuration has an option
// without a field in v.
func decodeStrict(conf []byte, v any) bool {
	d := json.NewDecoder(bytes.NewReader(conf))
	d.DisallowUnknownFields()
	return d.Decode(v) == nil
}

// isIdle reports whether a plugin would do nothing for a pod.
func isIdle(p *libcni.PluginConfig, pod Pod) bool {
	switch p.Network.Type {
	case "bandwidth":
		return pod.Bandwidth == nil && decodeStrict(p.Bytes, &idleOptions{})
	case "portmap":
		return len(pod.PortMappings) == 0 && decodeStrict(p.Bytes, &idlePortmapOptions{})
	}
	return false
}

// podList returns the list for a pod. It removes the plugins that would do nothing for the pod,
// which saves two processes for most pods, and the plugin portmap if the daemon maps the host
// ports. With Config.NoBuiltin it keeps all plugins.
func (n *Network) podList(l *list, pod Pod) (*list, error) {
	if len(pod.PortMappings) > 0 && !l.capable("portMappings") {
		// This is no error, because some plugins get host ports by other means.
		logrus.WithFields(logrus.Fields{"pod": pod.ID, "network": l.conf.Name}).Warn("no plugin of the network declares the capability portMappings; the daemon does not map host ports")
	}
	if n.cfg().NoBuiltin {
		return l, nil
	}
	l, err := l.without(func(p *libcni.PluginConfig) bool { return isIdle(p, pod) })
	if err != nil {
		return nil, err
	}
	if l.hostPorts != nil && len(pod.PortMappings) > 0 {
		return l.withHostPorts()
	}
	return l, nil
}

// without returns the list without the plugins that remove selects.
func (l *list) without(remove func(*libcni.PluginConfig) bool) (*list, error) {
	if !slices.ContainsFunc(l.conf.Plugins, remove) {
		return l, nil
	}
	conf := *l.conf
	conf.Plugins = slices.DeleteFunc(slices.Clone(conf.Plugins), remove)
	raw, err := encode(&conf, l.masquerade, nil)
	if err != nil {
		return nil, err
	}
	shorter, err := parseList(raw)
	if err != nil {
		return nil, err
	}
	shorter.hostPorts = l.hostPorts
	return shorter, nil
}

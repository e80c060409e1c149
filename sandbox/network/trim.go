package network

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/containernetworking/cni/libcni"
	"github.com/sirupsen/logrus"
)

// idleConf is a configuration with which the plugins bandwidth and portmap do
// nothing unless a capability asks for something. Any other field, such as a rate
// or a runtimeConfig of the file's own, has to be left to the plugin.
type idleConf struct {
	CNIVersion   string          `json:"cniVersion"`
	Name         string          `json:"name"`
	Type         string          `json:"type"`
	Capabilities map[string]bool `json:"capabilities"`
}

// idlePortmap has in addition the options of portmap that say how, and not which,
// ports are mapped.
type idlePortmap struct {
	idleConf
	Backend              json.RawMessage `json:"backend"`
	SNAT                 json.RawMessage `json:"snat"`
	ConditionsV4         json.RawMessage `json:"conditionsV4"`
	ConditionsV6         json.RawMessage `json:"conditionsV6"`
	MasqAll              json.RawMessage `json:"masqAll"`
	MarkMasqBit          json.RawMessage `json:"markMasqBit"`
	ExternalSetMarkChain json.RawMessage `json:"externalSetMarkChain"`
}

// decodeAll reports whether v has a field for everything in a configuration.
func decodeAll(conf []byte, v any) bool {
	d := json.NewDecoder(bytes.NewReader(conf))
	d.DisallowUnknownFields()
	return d.Decode(v) == nil
}

// idle reports whether a plugin would do nothing for a pod.
func idle(p *libcni.PluginConfig, pod Pod) bool {
	switch p.Network.Type {
	case "bandwidth":
		return pod.Bandwidth == nil && decodeAll(p.Bytes, &idleConf{})
	case "portmap":
		return len(pod.PortMappings) == 0 && decodeAll(p.Bytes, &idlePortmap{})
	}
	return false
}

// trim returns the list as the pod needs it: without the plugins that would do
// nothing for the pod, which saves two processes for most pods, and without
// portmap if the daemon does the host ports. With Config.NoBuiltin every plugin
// is executed.
func (n *Network) trim(l *list, pod Pod) (*list, error) {
	if len(pod.PortMappings) > 0 && !l.capable("portMappings") {
		// Not an error: there are plugins that learn of host ports elsewhere.
		logrus.WithFields(logrus.Fields{"pod": pod.ID, "network": l.conf.Name}).Warn("no plugin of the network declares the capability portMappings; host ports are left to it")
	}
	if n.cfg.NoBuiltin {
		return l, nil
	}
	l, err := l.without(func(p *libcni.PluginConfig) bool { return idle(p, pod) })
	if err != nil {
		return nil, err
	}
	if l.hostPorts != nil && len(pod.PortMappings) > 0 {
		return l.withHostPorts()
	}
	return l, nil
}

// without returns the list without the plugins that drop selects.
func (l *list) without(drop func(*libcni.PluginConfig) bool) (*list, error) {
	if !slices.ContainsFunc(l.conf.Plugins, drop) {
		return l, nil
	}
	conf := *l.conf
	conf.Plugins = slices.DeleteFunc(slices.Clone(conf.Plugins), drop)
	raw, err := encode(&conf, l.masquerade, nil)
	if err != nil {
		return nil, err
	}
	less, err := fromRaw(raw)
	if err != nil {
		return nil, err
	}
	less.hostPorts = l.hostPorts
	return less, nil
}

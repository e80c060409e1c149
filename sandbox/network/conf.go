package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/criserver/criserver/sandbox/network/nat"
)

// maxConfSize is the maximum size of a configuration file in bytes.
const maxConfSize = 1 << 20

// list is a network configuration list, either of a loaded network or of the plan of an interface.
type list struct {
	file string
	conf *libcni.NetworkConfigList // for the plugins
	raw  json.RawMessage           // as configured
	// planned is the JSON of conf, masquerade and hostPorts for the record of a pod.
	planned json.RawMessage
	// masquerade is set if the daemon masquerades in place of the plugins.
	masquerade *nat.Masquerade
	// masqueradePending says that masquerade could not be applied. The next Reload tries again.
	masqueradePending bool
	// hostPorts is set in a loaded network if the daemon can map host ports, and in a plan if the daemon maps them.
	hostPorts *nat.HostPorts
	// defaultBridge is set if the network is the default bridge, which has no file.
	defaultBridge *DefaultBridge
}

// load reads all configuration files. It uses the first of several networks with the same name. An
// additional network is the default network only if the configuration of the daemon names it.
func (n *Network) load(cfg *Config) *loaded {
	d := &loaded{read: true, additional: map[string]*list{}}
	lists, empty, errs := readDirs(cfg.ConfDirs)
	d.empty = empty
	for _, l := range lists {
		d.add(cfg, l)
	}
	if d.list == nil {
		d.err = cfg.notFound(errs)
	}
	cfg.loadHandlers(d)
	return d
}

// readDirs reads all configuration files of directories, in the order of the search. empty reports whether the
// directories have no configuration file, not even an invalid one.
func readDirs(dirs []string) (lists []*list, empty bool, errs []error) {
	empty = true
	for _, dir := range dirs {
		files, err := libcni.ConfFiles(dir, []string{".conflist", ".conf", ".json"})
		empty = empty && len(files) == 0 && err == nil
		if err != nil {
			errs = append(errs, err)
			continue
		}
		slices.Sort(files)
		for _, file := range files {
			l, err := parse(file)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			lists = append(lists, l)
		}
	}
	return lists, empty, errs
}

// add adds a network if it is the default network or an additional network.
func (d *loaded) add(cfg *Config, l *list) {
	name := l.conf.Name
	additional := slices.Contains(cfg.Additional, name)
	switch {
	case d.list == nil && (name == cfg.DefaultNetwork || cfg.DefaultNetwork == "" && !additional):
		d.list = l
	case additional && d.byName(name) == nil:
		d.additional[name] = l
	}
}

// notFound returns the error for a configuration without a default network.
func (cfg *Config) notFound(errs []error) error {
	what := "no CNI network configuration"
	if cfg.DefaultNetwork != "" {
		what = fmt.Sprintf("no CNI network named %q", cfg.DefaultNetwork)
	}
	err := fmt.Errorf("%s in %s: put a .conflist file there: %w", what, strings.Join(cfg.ConfDirs, ", "), errdefs.ErrUnavailable)
	return errors.Join(append([]error{err}, errs...)...)
}

// parse reads a configuration file.
func parse(file string) (*list, error) {
	l, err := parseFile(file)
	if err != nil {
		return nil, fmt.Errorf("CNI configuration %s: %w", file, err)
	}
	l.file = file
	return l, nil
}

func parseFile(file string) (*list, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxConfSize {
		return nil, fmt.Errorf("not a regular file of at most %d bytes", maxConfSize)
	}
	conf, err := parseConf(file)
	if err != nil {
		return nil, err
	}
	if err := check(conf); err != nil {
		return nil, err
	}
	raw, err := inline(conf)
	if err != nil {
		return nil, err
	}
	return parseList(raw)
}

func parseConf(file string) (*libcni.NetworkConfigList, error) {
	if filepath.Ext(file) == ".conflist" {
		return libcni.NetworkConfFromFile(file)
	}
	// The file has the old form with one plugin and without a list.
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	one, err := libcni.NetworkPluginConfFromBytes(b)
	if err != nil {
		return nil, err
	}
	list, err := json.Marshal(struct {
		CNIVersion string            `json:"cniVersion"`
		Name       string            `json:"name"`
		Plugins    []json.RawMessage `json:"plugins"`
	}{one.Network.CNIVersion, one.Network.Name, []json.RawMessage{b}})
	if err != nil {
		return nil, err
	}
	return libcni.NetworkConfFromBytes(list)
}

// check checks the rules that the CNI library does not check.
func check(conf *libcni.NetworkConfigList) error {
	if err := utils.ValidateNetworkName(conf.Name); err != nil {
		return fmt.Errorf("name %q: %s", conf.Name, err.Msg)
	}
	if len(conf.Plugins) == 0 {
		return errors.New("the network has no plugins")
	}
	if _, _, _, err := version.ParseVersion(conf.CNIVersion); conf.CNIVersion != "" && err != nil {
		return fmt.Errorf("cniVersion %q: %w", conf.CNIVersion, err)
	}
	return nil
}

// inline returns the JSON of the list with all plugins, including plugins from separate files. The record of a pod then
// contains everything that Detach needs.
func inline(conf *libcni.NetworkConfigList) (json.RawMessage, error) {
	out := map[string]any{}
	if err := json.Unmarshal(conf.Bytes, &out); err != nil {
		return nil, err
	}
	plugins := make([]json.RawMessage, len(conf.Plugins))
	for i, p := range conf.Plugins {
		plugins[i] = p.Bytes
	}
	out["plugins"], out["loadOnlyInlinedPlugins"] = plugins, true
	// A configuration file cannot set these.
	delete(out, hostPortPlanKey)
	delete(out, masqueradePlanKey)
	return json.Marshal(out)
}

// encode is like inline, and adds the work that the daemon does in place of the plugins.
func encode(conf *libcni.NetworkConfigList, m *nat.Masquerade, ports *nat.HostPorts) (json.RawMessage, error) {
	raw, err := inline(conf)
	if err != nil || m == nil && ports == nil {
		return raw, err
	}
	out := map[string]any{}
	if err := json.Unmarshal(raw, &out); err != nil {
		return nil, err
	}
	if m != nil {
		out[masqueradePlanKey] = m
	}
	if ports != nil {
		out[hostPortPlanKey] = ports
	}
	return json.Marshal(out)
}

// parseList parses the JSON of inline or encode.
func parseList(raw json.RawMessage) (*list, error) {
	conf, err := libcni.NetworkConfFromBytes(raw)
	if err != nil {
		return nil, err
	}
	var plan struct {
		HostPorts  *nat.HostPorts  `json:"io.criserver.hostPorts"`
		Masquerade *nat.Masquerade `json:"io.criserver.masquerade"`
	}
	if err := json.Unmarshal(raw, &plan); err != nil {
		return nil, fmt.Errorf("%s, %s: %w", hostPortPlanKey, masqueradePlanKey, err)
	}
	return &list{conf: conf, raw: raw, planned: raw, hostPorts: plan.HostPorts, masquerade: plan.Masquerade}, nil
}

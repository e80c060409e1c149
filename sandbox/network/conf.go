package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
)

// maxConfSize bounds a configuration file in bytes.
const maxConfSize = 1 << 20

// list is a network configuration list in the one form in which it is used,
// recorded and read back.
type list struct {
	file string
	conf *libcni.NetworkConfigList
	raw  json.RawMessage // as configured
	// planned is raw as it is handed to plugins, and masquerade what the daemon
	// does in their stead, or nil. A plan has it, too.
	planned    json.RawMessage
	masquerade *masquerade
	// masqueradeFailed has the next reading of the same files try again.
	masqueradeFailed bool
	// hostPorts is how the daemon does the host ports of this list: of a loaded
	// one, where it can, and of a plan, where it shall. Else nil.
	hostPorts *hostPortPlan
}

// Reload reads the configuration directories and takes the networks that it
// finds there. If it finds no network, Status returns the reason. A file that
// cannot be read does not prevent the use of a valid file. Reload logs what has
// changed, and reports whether anything has changed.
//
// The calls of nft that prepare a network end after the duration within. If one
// of them does, Reload keeps the earlier configuration and returns the error: a
// slow machine has to come to the same result as a fast one, so the caller tries
// again with more time.
func (n *Network) Reload(ctx context.Context, within time.Duration) (changed bool, err error) {
	before, next := n.loaded.Load(), n.load()
	if next.same(before) {
		return false, nil
	}
	if err := n.prepare(ctx, next, within); err != nil {
		if before.list == nil {
			n.replace(before, &loaded{err: fmt.Errorf("CNI network is not ready yet: %w: %w", err, errdefs.ErrUnavailable)})
		}
		return false, err
	}
	n.replace(before, next)
	n.logChange(ctx, before, next)
	n.configureTables(next)
	return true, nil
}

// replace publishes a configuration. Whoever waits for the checks of the earlier
// one goes on to wait for those of the new one.
func (n *Network) replace(before, next *loaded) {
	next.settled = make(chan struct{})
	n.loaded.Store(next)
	before.settle()
}

// settle is called by Reload and Run only, which are never concurrent.
func (d *loaded) settle() {
	select {
	case <-d.settled:
	default:
		close(d.settled)
	}
}

func (n *Network) logChange(ctx context.Context, before, next *loaded) {
	log := logrus.WithContext(ctx)
	if next.err != nil && (before.err == nil || before.err.Error() != next.err.Error()) {
		log.WithError(next.err).Warn("pods cannot be attached to a network")
	}
	for _, l := range next.all() {
		if old := before.named(l.conf.Name); old == nil || !bytes.Equal(old.raw, l.raw) {
			log.WithFields(logrus.Fields{"network": l.conf.Name, "file": l.file}).Info("network configuration loaded")
		}
	}
	for _, name := range n.cfg.Additional {
		if next.named(name) == nil && (before.named(name) != nil || !before.read) {
			log.WithFields(logrus.Fields{"network": name, "directories": n.cfg.ConfDirs}).Warn("additional network is not configured")
		}
	}
}

// prepare decides for all networks which work the daemon takes from their
// plugins. An error says that a call of nft did not end in time, so that nothing
// is decided.
func (n *Network) prepare(ctx context.Context, d *loaded, within time.Duration) error {
	if n.cfg.NoBuiltin {
		return nil
	}
	var g errgroup.Group
	for _, l := range d.all() {
		// takeMasquerade replaces l.conf, so the other call must not read it.
		name, plan := l.conf.Name, hostPortsOf(l.conf)
		g.Go(func() error {
			err := n.takeHostPorts(ctx, l, plan, within)
			return undecided(ctx, name, err, "the portmap plugin does the host ports, which is slower")
		})
		g.Go(func() error {
			err := n.takeMasquerade(ctx, l, within)
			return undecided(ctx, name, err, "the plugins do the masquerading, which is slower")
		})
	}
	return g.Wait()
}

// undecided returns the error of a call that did not end in time. It logs any
// other error, from which the consequence follows.
func undecided(ctx context.Context, network string, err error, consequence string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded), ctx.Err() != nil:
		return fmt.Errorf("network %q: %w", network, err)
	}
	logrus.WithContext(ctx).WithError(err).WithField("network", network).Warn(consequence)
	return nil
}

// same says whether nothing has changed, and what is needed besides is there.
func (d *loaded) same(before *loaded) bool {
	if !before.read || d.err != nil || before.err != nil || len(d.additional) != len(before.additional) {
		return false
	}
	for _, l := range d.all() {
		old := before.named(l.conf.Name)
		if old == nil || old.raw == nil || !bytes.Equal(old.raw, l.raw) || old.masqueradeFailed {
			return false
		}
	}
	return d.list.conf.Name == before.list.conf.Name
}

// all lists the networks, the default one first.
func (d *loaded) all() []*list {
	var out []*list
	if d.list != nil {
		out = append(out, d.list)
	}
	for _, name := range slices.Sorted(maps.Keys(d.additional)) {
		out = append(out, d.additional[name])
	}
	return out
}

func (d *loaded) named(name string) *list {
	if d.list != nil && d.list.conf.Name == name {
		return d.list
	}
	return d.additional[name]
}

// load reads all files. The first of a name counts; one that is additional is
// the default network only when that is named so.
func (n *Network) load() *loaded {
	d := &loaded{read: true, additional: map[string]*list{}}
	var faults []error
	for _, dir := range n.cfg.ConfDirs {
		files, err := libcni.ConfFiles(dir, []string{".conflist", ".conf", ".json"})
		if err != nil {
			faults = append(faults, err)
			continue
		}
		slices.Sort(files)
		for _, file := range files {
			l, err := parse(file)
			if err != nil {
				faults = append(faults, err)
				continue
			}
			n.place(d, l)
		}
	}
	if d.list == nil {
		d.err = n.notFound(faults)
	}
	return d
}

func (n *Network) place(d *loaded, l *list) {
	name := l.conf.Name
	additional := slices.Contains(n.cfg.Additional, name)
	switch {
	case d.list == nil && (name == n.cfg.DefaultNetwork || n.cfg.DefaultNetwork == "" && !additional):
		d.list = l
	case additional && d.named(name) == nil:
		d.additional[name] = l
	}
}

func (n *Network) notFound(faults []error) error {
	what := "no CNI network configuration"
	if n.cfg.DefaultNetwork != "" {
		what = fmt.Sprintf("no CNI network named %q", n.cfg.DefaultNetwork)
	}
	err := fmt.Errorf("%s in %s: put a .conflist file there: %w", what, strings.Join(n.cfg.ConfDirs, ", "), errdefs.ErrUnavailable)
	return errors.Join(append([]error{err}, faults...)...)
}

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
		return nil, fmt.Errorf("it must be a regular file of at most %d bytes", maxConfSize)
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
	return fromRaw(raw)
}

func parseConf(file string) (*libcni.NetworkConfigList, error) {
	if filepath.Ext(file) == ".conflist" {
		return libcni.NetworkConfFromFile(file)
	}
	// The old form: one plugin, no list.
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

func check(conf *libcni.NetworkConfigList) error {
	if err := utils.ValidateNetworkName(conf.Name); err != nil {
		return fmt.Errorf("name %q: %s", conf.Name, err.Msg)
	}
	if len(conf.Plugins) == 0 {
		return errors.New("it has no plugins")
	}
	if _, _, _, err := version.ParseVersion(conf.CNIVersion); conf.CNIVersion != "" && err != nil {
		return fmt.Errorf("cniVersion %q: %w", conf.CNIVersion, err)
	}
	return nil
}

// inline writes the list with its plugins in it, also those that stand in files
// of their own, so that a record of it is enough to detach a pod with.
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
	delete(out, planKey) // a file has no say in these
	delete(out, masqueradeKey)
	return json.Marshal(out)
}

// encode is inline, with what the daemon does in the place of plugins.
func encode(conf *libcni.NetworkConfigList, m *masquerade, ports *hostPortPlan) (json.RawMessage, error) {
	raw, err := inline(conf)
	if err != nil || m == nil && ports == nil {
		return raw, err
	}
	out := map[string]any{}
	if err := json.Unmarshal(raw, &out); err != nil {
		return nil, err
	}
	if m != nil {
		out[masqueradeKey] = m
	}
	if ports != nil {
		out[planKey] = ports
	}
	return json.Marshal(out)
}

func fromRaw(raw json.RawMessage) (*list, error) {
	conf, err := libcni.NetworkConfFromBytes(raw)
	if err != nil {
		return nil, err
	}
	var own struct {
		HostPorts  *hostPortPlan `json:"io.criserver.hostPorts"`
		Masquerade *masquerade   `json:"io.criserver.masquerade"`
	}
	if err := json.Unmarshal(raw, &own); err != nil {
		return nil, fmt.Errorf("%s, %s: %w", planKey, masqueradeKey, err)
	}
	return &list{conf: conf, raw: raw, planned: raw, hostPorts: own.HostPorts, masquerade: own.Masquerade}, nil
}

// findPlugins looks for the binaries of a list's plugins, every time anew: who
// installs them does not touch the configuration.
func (n *Network) findPlugins(l *list) error {
	var types []string
	for _, p := range l.conf.Plugins {
		types = append(types, p.Network.Type)
		if p.Network.IPAM.Type != "" {
			types = append(types, p.Network.IPAM.Type)
		}
	}
	for _, t := range types {
		if _, err := invoke.FindInPath(t, n.cfg.BinDirs); err != nil {
			return fmt.Errorf("CNI plugin %q of network %q (%s) is in none of %s: install it there: %w",
				t, l.conf.Name, l.file, strings.Join(n.cfg.BinDirs, ", "), errdefs.ErrUnavailable)
		}
	}
	return nil
}

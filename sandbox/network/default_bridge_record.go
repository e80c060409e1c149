package network

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
	"github.com/criserver/criserver/internal/atomicfile"
	"github.com/sirupsen/logrus"
)

// bridgeOwner returns the alias of the bridge of this daemon. Daemons have different state directories.
func (n *Network) bridgeOwner() string {
	owner := "criserver " + n.stateDir()
	return owner[max(0, len(owner)-maxAlias):]
}

// stateDir returns the directory with the record and the leases of the default bridge.
func (n *Network) stateDir() string {
	return filepath.Join(cmp.Or(n.cfg().CacheDir, libcni.CacheDir), "default-bridge")
}

func (n *Network) bridgeFile() string  { return filepath.Join(n.stateDir(), "bridge.json") }
func (n *Network) podCIDRFile() string { return filepath.Join(n.stateDir(), "pod-cidr") }

// recordedBridge returns the recorded default bridge, or nil if there is no record. An invalid record counts as no
// record: the pods of its bridge keep the bridge, and the daemon chooses another bridge for new pods.
func (n *Network) recordedBridge(ctx context.Context) (*DefaultBridge, error) {
	b, err := os.ReadFile(n.bridgeFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d := &DefaultBridge{}
	err = json.Unmarshal(b, d)
	if err == nil && (d.Bridge == "" || len(d.Ranges) == 0) {
		err = errors.New("the name or the ranges are missing")
	}
	if err != nil {
		logrus.WithContext(ctx).WithError(err).WithField("file", n.bridgeFile()).Warn("the record of the default bridge is invalid and is ignored")
		return nil, nil
	}
	return d, nil
}

// recordedPodCIDR returns the ranges that the kubelet has sent last, or nil. The kubelet does not send them again when
// the daemon restarts.
func (n *Network) recordedPodCIDR() ([]netip.Prefix, error) {
	b, err := os.ReadFile(n.podCIDRFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	cidrs, err := parseCIDRs(string(b))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", n.podCIDRFile(), err)
	}
	out := make([]netip.Prefix, len(cidrs.PodCIDRRanges))
	for i, r := range cidrs.PodCIDRRanges {
		if out[i], err = netip.ParsePrefix(r); err != nil {
			return nil, fmt.Errorf("read %s: %w", n.podCIDRFile(), err)
		}
	}
	return out, nil
}

// recordPodCIDR records a list of ranges for the default bridge, and makes Run load the configuration again.
func (n *Network) recordPodCIDR(ctx context.Context, list string) error {
	n.podCIDR.Lock()
	defer n.podCIDR.Unlock()
	if before, err := os.ReadFile(n.podCIDRFile()); err == nil && string(before) == list {
		return nil
	}
	if err := os.MkdirAll(n.stateDir(), 0o700); err != nil {
		return err
	}
	if err := atomicfile.Write(n.podCIDRFile(), []byte(list), 0o600); err != nil {
		return err
	}
	logrus.WithContext(ctx).WithField("podCIDR", list).Info("pod CIDR recorded for the default bridge")
	n.requestReload()
	return nil
}

// requestReload makes Run load the configuration again.
func (n *Network) requestReload() {
	select {
	case n.reloadRequests <- struct{}{}:
	default:
	}
}

package network

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
	"github.com/criserver/criserver/internal/atomicfile"
	"github.com/criserver/criserver/sandbox/network/podcidr"
	"github.com/sirupsen/logrus"
)

// generatedFile is the name of the file that the daemon generates from the template. The file is in the first of the
// configuration directories.
const generatedFile = "10-criserver-pod-cidr.conflist"

// SetPodCIDR generates the default network from the template. list has the address ranges for the pods of the node,
// separated by commas. SetPodCIDR writes the file only if the content has changed, and does nothing if another file has
// the default network or if the list is empty. If there is no template, the default bridge uses the ranges, as soon as
// it is in use. The error is ErrInvalidArgument if the list is invalid, and ErrFailedPrecondition if the template is
// invalid.
func (n *Network) SetPodCIDR(ctx context.Context, list string) error {
	if list == "" {
		return nil
	}
	ranges, err := podcidr.Parse(list)
	if err != nil {
		return err
	}
	n.lastPodCIDR.Store(&list)
	cfg := n.cfg()
	log := logrus.WithContext(ctx).WithField("podCIDR", list)
	if cfg.ConfTemplate == "" && cfg.DefaultBridge {
		return n.recordPodCIDR(ctx, list)
	}
	if cfg.ConfTemplate == "" {
		log.Debug("pod CIDR is ignored: cni.conf_template is not set")
		return nil
	}
	content, err := podcidr.Render(cfg.ConfTemplate, ranges, checkConf)
	if err != nil {
		return err
	}
	n.podCIDR.Lock()
	defer n.podCIDR.Unlock()
	file := filepath.Join(cfg.ConfDirs[0], generatedFile)
	if l := n.load(cfg).list; l != nil && l.file != file {
		log.WithField("file", l.file).Info("pod CIDR is ignored: another file has the default network")
		return nil
	}
	if before, err := os.ReadFile(file); err == nil && bytes.Equal(before, content) {
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(cfg.ConfDirs[0], 0o755); err != nil {
		return err
	}
	if err := atomicfile.WriteSync(file, content, 0o600); err != nil {
		return err
	}
	log.WithField("file", file).Info("network configuration was generated from the pod CIDR")
	return nil
}

// checkConf returns an error if the content of a configuration file is not a valid network.
func checkConf(content []byte) error {
	conf, err := libcni.NetworkConfFromBytes(content)
	if err != nil {
		return err
	}
	return check(conf)
}

// recordPodCIDR records a list of ranges for the default bridge, and makes Run load the configuration again.
func (n *Network) recordPodCIDR(ctx context.Context, list string) error {
	n.podCIDR.Lock()
	defer n.podCIDR.Unlock()
	changed, err := n.defaultBridge.RecordPodCIDR(ctx, list)
	if changed {
		n.requestReload()
	}
	return err
}

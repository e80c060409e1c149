package defaultbridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/criserver/criserver/internal/atomicfile"
	"github.com/criserver/criserver/sandbox/network/podcidr"
	"github.com/sirupsen/logrus"
)

// owner returns the alias of the bridge of this daemon. Daemons have different state directories.
func (s *Store) owner() string {
	owner := "criserver " + s.dir
	return owner[max(0, len(owner)-maxAlias):]
}

func (s *Store) bridgeFile() string  { return filepath.Join(s.dir, "bridge.json") }
func (s *Store) podCIDRFile() string { return filepath.Join(s.dir, "pod-cidr") }

// recordedBridge returns the recorded default bridge, or nil if there is no record. An invalid record counts as no
// record: the pods of its bridge keep the bridge, and the daemon chooses another bridge for new pods.
func (s *Store) recordedBridge(ctx context.Context) (*Bridge, error) {
	b, err := os.ReadFile(s.bridgeFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d := &Bridge{}
	err = json.Unmarshal(b, d)
	if err == nil && (d.Bridge == "" || len(d.Ranges) == 0) {
		err = errors.New("the name or the ranges are missing")
	}
	if err != nil {
		logrus.WithContext(ctx).WithError(err).WithField("file", s.bridgeFile()).Warn("the record of the default bridge is invalid and is ignored")
		return nil, nil
	}
	return d, nil
}

// recordedPodCIDR returns the ranges that the kubelet has sent last, or nil. The kubelet does not send them again when
// the daemon restarts.
func (s *Store) recordedPodCIDR() ([]netip.Prefix, error) {
	b, err := os.ReadFile(s.podCIDRFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out, err := podcidr.Parse(string(b))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.podCIDRFile(), err)
	}
	return out, nil
}

// PodCIDR returns the list of ranges that RecordPodCIDR has recorded last, or "".
func (s *Store) PodCIDR() string {
	b, err := os.ReadFile(s.podCIDRFile())
	if err != nil {
		return ""
	}
	return string(b)
}

// RecordPodCIDR records a valid list of ranges, which Claim prefers, and reports whether the list has changed. Calls of
// RecordPodCIDR must not run at the same time.
func (s *Store) RecordPodCIDR(ctx context.Context, list string) (changed bool, err error) {
	if before, err := os.ReadFile(s.podCIDRFile()); err == nil && string(before) == list {
		return false, nil
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return false, err
	}
	if err := atomicfile.Write(s.podCIDRFile(), []byte(list), 0o600); err != nil {
		return false, err
	}
	logrus.WithContext(ctx).WithField("podCIDR", list).Info("pod CIDR recorded for the default bridge")
	return true, nil
}

package defaultbridge

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/criserver/criserver/internal/atomicfile"
	"github.com/criserver/criserver/sandbox/network/bridge"
	"github.com/sirupsen/logrus"
)

// replaceBridge records the next bridge before it is created. If no pod uses the recorded bridge and its ranges have
// changed, replaceBridge deletes the recorded bridge, so that the old gateway addresses do not remain.
func (s *Store) replaceBridge(recorded *Bridge, next Bridge) error {
	if recorded != nil && recorded.Bridge == next.Bridge {
		if slices.Equal(recorded.Ranges, next.Ranges) {
			return nil
		}
		if err := s.deleteBridge(*recorded); err != nil {
			return err
		}
	}
	b, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	return atomicfile.Write(s.bridgeFile(), b, 0o600)
}

// deleteBridge deletes a bridge if no pod is attached or being attached.
func (s *Store) deleteBridge(b Bridge) error {
	return s.pods.WhileIdle(func() error {
		if s.pods.InUse(b.Network()) {
			return nil
		}
		_, err := bridge.Unclaim(b.Bridge, s.owner(), b.Ranges)
		return err
	})
}

// Remove deletes the recorded bridge, and its record, if no pod uses the bridge. The caller must not attach pods during
// the call. The next Claim creates a bridge again.
func (s *Store) Remove(ctx context.Context) error {
	recorded, err := s.recordedBridge(ctx)
	if err != nil || recorded == nil || s.pods.InUse(recorded.Network()) {
		return err
	}
	deleted, err := bridge.Unclaim(recorded.Bridge, s.owner(), recorded.Ranges)
	if err != nil || !deleted {
		return err
	}
	if err := os.Remove(s.bridgeFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	logrus.WithContext(ctx).WithField("bridge", recorded.Bridge).Info("deleted the unused default bridge")
	return nil
}

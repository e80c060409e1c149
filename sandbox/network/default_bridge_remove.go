package network

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
func (n *Network) replaceBridge(recorded *DefaultBridge, next DefaultBridge) error {
	if recorded != nil && recorded.Bridge == next.Bridge {
		if slices.Equal(recorded.Ranges, next.Ranges) {
			return nil
		}
		if err := n.deleteBridge(*recorded); err != nil {
			return err
		}
	}
	b, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(n.stateDir(), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(n.bridgeFile(), b, 0o600)
}

// deleteBridge deletes a bridge if no pod is attached or being attached.
func (n *Network) deleteBridge(b DefaultBridge) error {
	return n.attachments.whileIdle(func() error {
		if n.attachments.inUse(b.network()) {
			return nil
		}
		_, err := bridge.Unclaim(b.Bridge, n.bridgeOwner(), b.Ranges)
		return err
	})
}

// removeUnusedBridge deletes the recorded bridge, and its record, when pods use another default network and the last
// pod of the bridge has been removed. The caller has called beginGC, so that no pod is attached during the call.
func (n *Network) removeUnusedBridge(ctx context.Context) error {
	if n.DefaultBridge() != nil {
		return nil
	}
	return n.removeBridge(ctx)
}

// RemoveDefaultBridge deletes the recorded bridge, and its record, if no pod is attached or being attached. The first
// pod that needs the default bridge creates it again.
func (n *Network) RemoveDefaultBridge(ctx context.Context) error {
	return n.attachments.whileIdle(func() error { return n.removeBridge(ctx) })
}

// removeBridge deletes the recorded bridge, and its record, if no pod is attached. The caller has called beginGC.
func (n *Network) removeBridge(ctx context.Context) error {
	recorded, err := n.recordedBridge(ctx)
	if err != nil || recorded == nil || n.attachments.inUse(recorded.network()) {
		return err
	}
	deleted, err := bridge.Unclaim(recorded.Bridge, n.bridgeOwner(), recorded.Ranges)
	if err != nil || !deleted {
		return err
	}
	if err := os.Remove(n.bridgeFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	logrus.WithContext(ctx).WithField("bridge", recorded.Bridge).Info("deleted the unused default bridge")
	return nil
}

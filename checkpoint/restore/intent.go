package restore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/criserver/criserver/internal/atomicfile"
	"github.com/criserver/criserver/internal/ids"
	"github.com/sirupsen/logrus"
)

// intent is the record of a running restore of a pod.
type intent struct {
	Version int    `json:"version"`
	Pod     podKey `json:"pod"`
}

const intentVersion = 1

// MakeDir makes the directory of the records. The caller calls MakeDir before all other methods.
func (m *Manager) MakeDir() error {
	if err := os.MkdirAll(m.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of restores: %w", err)
	}
	return nil
}

// writeIntent records that the pod of a name is being restored. done removes the record.
func (m *Manager) writeIntent(key podKey) (done func() error, err error) {
	b, err := json.Marshal(intent{Version: intentVersion, Pod: key})
	if err != nil {
		return nil, err
	}
	path := filepath.Join(m.cfg.Dir, ids.New()+".json")
	if err := atomicfile.Write(path, b, 0o600); err != nil {
		return nil, fmt.Errorf("record the restore: %w", err)
	}
	return func() error { return os.Remove(path) }, nil
}

// Recover removes the pods whose restore ended with an earlier daemon. Recover keeps and logs a record that it cannot
// read.
func (m *Manager) Recover(ctx context.Context) error {
	defer close(m.recovered)
	if err := atomicfile.RemoveTemporary(m.cfg.Dir); err != nil {
		return fmt.Errorf("recover restores: %w", err)
	}
	entries, err := os.ReadDir(m.cfg.Dir)
	if err != nil {
		return fmt.Errorf("recover restores: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(m.cfg.Dir, e.Name())
		err := m.recoverRestore(ctx, path)
		if err == nil {
			err = os.Remove(path)
		}
		if err != nil {
			logrus.WithContext(ctx).WithField("record", path).WithError(err).Error("remove a pod whose restore was interrupted")
		}
	}
	return nil
}

// recoverRestore removes the pod of one record.
func (m *Manager) recoverRestore(ctx context.Context, path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var in intent
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	if in.Version != intentVersion {
		return fmt.Errorf("version %d is not supported", in.Version)
	}
	return m.removePods(ctx, in.Pod)
}

// removePods removes the pod sandbox of a name with its containers. The restore has checked that there was none before.
func (m *Manager) removePods(ctx context.Context, key podKey) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	var errs []error
	for _, p := range m.cfg.Pods.List() {
		if p.Unreadable || keyOf(p.Config) != key {
			continue
		}
		err := m.cfg.Pods.Stop(ctx, p.ID)
		if err == nil {
			err = m.cfg.Pods.Remove(ctx, p.ID)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

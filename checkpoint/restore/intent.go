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

// interrupted is a restore that ended with an earlier daemon.
type interrupted struct {
	record string   // the path of the record
	pods   []string // the ids of the pods of the restore
}

// Load makes the directory of the records and finds the pods of restores that ended with an earlier daemon. Load logs
// and keeps a record that it cannot read. The caller calls Load before the daemon serves requests, because a record has
// only the name of its pod, and a new pod can get the same name.
func (m *Manager) Load(ctx context.Context) error {
	err := os.MkdirAll(m.cfg.Dir, 0o700)
	if err == nil {
		err = atomicfile.RemoveTemporary(m.cfg.Dir)
	}
	if err != nil {
		return fmt.Errorf("load the records of restores: %w", err)
	}
	entries, err := os.ReadDir(m.cfg.Dir)
	if err != nil {
		return fmt.Errorf("load the records of restores: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(m.cfg.Dir, e.Name())
		in, err := readIntent(path)
		if err != nil {
			logrus.WithContext(ctx).WithField("record", path).WithError(err).Error("read the record of a restore; its pod may be incomplete")
			continue
		}
		m.interrupted = append(m.interrupted, interrupted{path, m.find(in.Pod)})
	}
	return nil
}

func readIntent(path string) (in intent, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return in, err
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return in, err
	}
	if in.Version != intentVersion {
		return in, fmt.Errorf("version %d is not supported", in.Version)
	}
	return in, nil
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

// Recover removes the pods that Load has found. If a pod cannot be removed, Recover logs the error and keeps the
// record, and the next daemon tries again.
func (m *Manager) Recover(ctx context.Context) error {
	defer close(m.recovered)
	for _, i := range m.interrupted {
		err := m.removePods(ctx, i.pods)
		if err == nil {
			err = os.Remove(i.record)
		}
		if err != nil {
			logrus.WithContext(ctx).WithField("record", i.record).WithError(err).Error("remove a pod whose restore was interrupted")
		}
	}
	return nil
}

// find returns the ids of the pod sandboxes of a name.
func (m *Manager) find(key podKey) (pods []string) {
	for _, p := range m.cfg.Pods.List() {
		if !p.Unreadable && keyOf(p.Config) == key {
			pods = append(pods, p.ID)
		}
	}
	return pods
}

// removePods removes pod sandboxes with their containers.
func (m *Manager) removePods(ctx context.Context, pods []string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	var errs []error
	for _, id := range pods {
		err := m.cfg.Pods.Stop(ctx, id)
		if err == nil {
			err = m.cfg.Pods.Remove(ctx, id)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

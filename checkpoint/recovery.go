package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/oci/runtime"
	"github.com/sirupsen/logrus"
)

// Recover ends the checkpoints of an earlier daemon: it thaws their containers and removes their files. A checkpoint
// that is complete, but whose caller has not received the answer, is removed as well. Recover only logs its errors,
// because they do not concern other containers. The caller calls it once, after the recovery of containers.
func (m *Manager) Recover(ctx context.Context) {
	log := logrus.WithContext(ctx)
	if err := os.MkdirAll(m.cfg.Dir, 0o700); err != nil {
		log.WithError(err).Error("make the directory for records of checkpoints")
	}
	files, err := filepath.Glob(filepath.Join(m.cfg.Dir, "*.json"))
	if err != nil {
		log.WithError(err).Error("list the records of checkpoints")
	}
	for _, file := range files {
		i, err := readIntent(file)
		if err != nil {
			log.WithError(err).Error("the record of a checkpoint cannot be read: thaw all containers; its files may be left")
			m.thawAll(ctx)
			err = os.Rename(file, strings.TrimSuffix(file, ".json")+".unread")
		} else {
			err = m.recover(ctx, i)
		}
		if err != nil {
			log.WithError(err).WithField("record", file).Error("end an interrupted checkpoint")
		}
	}
}

// recover ends one checkpoint. If it fails, the next daemon tries again.
func (m *Manager) recover(ctx context.Context, i *intent) error {
	log := logrus.WithContext(ctx).WithField("checkpoint", i.ID)
	log.Info("end the interrupted checkpoint of an earlier daemon")
	var errs []error
	if i.Boot == m.boot {
		dirs, err := filepath.Glob(filepath.Join(escapeGlob(i.Work), "*", imagesDir))
		errs = append(errs, err, runtime.EndDumps(ctx, i.ID, dirs))
		for _, path := range i.Cgroups {
			errs = append(errs, m.cfg.Cgroups.Thaw(path))
		}
	}
	errs = append(errs, i.removeFiles())
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return m.end(i)
}

// escapeGlob returns a pattern that matches only the path.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// removeFiles removes the files of an interrupted checkpoint. If the directory of a pod checkpoint is another one now,
// or does not exist, nothing is removed.
func (i *intent) removeFiles() error {
	if i.Output == nil {
		if !strings.HasPrefix(filepath.Base(i.Work), workPrefix) {
			return fmt.Errorf("%s is not the directory of a checkpoint", i.Work)
		}
		return os.RemoveAll(i.Work)
	}
	root, err := i.Output.open()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(removeOutput(root), root.Close())
}

// thawAll thaws all running containers.
func (m *Manager) thawAll(ctx context.Context) {
	for _, c := range m.cfg.Containers.List() {
		if c.State != container.Running {
			continue
		}
		if err := m.cfg.Cgroups.Thaw(c.ProcessCgroup); err != nil {
			logrus.WithContext(ctx).WithField("container", c.ID).WithError(err).Error("thaw the container")
		}
	}
}

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
	"github.com/criserver/criserver/internal/atomicfile"
	"github.com/criserver/criserver/oci/runtime"
	"github.com/sirupsen/logrus"
)

// Recover ends the checkpoints of an earlier daemon. Recover thaws the containers and removes the files of each
// checkpoint that has an intent record, even if the checkpoint is complete, because the client has received no answer.
// Recover only logs errors, so that the daemon starts. The caller calls Recover once, after the recovery of
// containers.
func (m *Manager) Recover(ctx context.Context) {
	log := logrus.WithContext(ctx)
	if _, err := m.readKey(); err != nil { // makes the key at the first start of a daemon
		log.WithError(err).Error("checkpoints are not possible")
	}
	if err := os.MkdirAll(m.cfg.Dir, 0o700); err != nil {
		log.WithError(err).Error("make the directory for records of checkpoints")
	}
	if err := atomicfile.RemoveTemporary(m.cfg.Dir); err != nil {
		log.WithError(err).Error("remove temporary files of checkpoints")
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

// recover ends one checkpoint. After an error the record stays, and the next daemon tries again.
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

// removeFiles removes the files of an interrupted checkpoint. removeFiles changes nothing if the directory of a pod
// checkpoint does not exist, or if another directory has the path now.
func (i *intent) removeFiles() error {
	if i.Output == nil {
		if !strings.HasPrefix(filepath.Base(i.Work), workPrefix) {
			return fmt.Errorf("%s is not a work directory of a checkpoint", i.Work)
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

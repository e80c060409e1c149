package image

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"

	"github.com/criserver/criserver/image/layer"
	"github.com/criserver/criserver/image/pull"
)

// CheckConfig returns an error if Update would fail with the Config, or if pulls would fail because
// a file of the Config cannot be read.
func (m *Manager) CheckConfig(cfg Config) error {
	if err := cfg.checkLimits(); err != nil {
		return err
	}
	var errs []error
	for _, err := range m.puller.Load().With(m.withSettings(cfg).pullConfig()).Check() {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// CheckFiles returns an error for each file that the Config names and that makes pulls fail. It only
// logs the errors of files of the system, because other programs own these files.
func (m *Manager) CheckFiles(ctx context.Context) error {
	var errs []error
	for _, err := range m.puller.Load().Check() {
		if err.System {
			logrus.WithContext(ctx).WithError(err).Warn("images cannot be pulled until the file of the system is correct")
			continue
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Update replaces the Config, except for Root, RunRoot and the intervals. Running pulls keep the
// Config that they began with. It returns ErrInvalidArgument, and changes nothing, if a limit is not
// greater than 0.
func (m *Manager) Update(cfg Config) error {
	if err := cfg.checkLimits(); err != nil {
		return err
	}
	next := m.withSettings(cfg)
	m.puller.Store(m.puller.Load().With(next.pullConfig()))
	m.layers.SetLimits(next.layerLimits())
	m.maxArchiveBytes.Store(next.MaxArchiveBytes)
	m.archives.setDirs(next.ArchiveDirs)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pinned.patterns = next.PinnedImages
	old := m.index.Load()
	m.index.Store(newIndex(old.all, old.broken, m.pinned))
	return nil
}

// withSettings returns a Config with the fields of the Manager that Update does not replace.
func (m *Manager) withSettings(cfg Config) Config {
	cfg.Root, cfg.RunRoot = m.cfg.Root, m.cfg.RunRoot
	cfg.ReportInterval, cfg.ResumeWindow, cfg.UsageInterval = m.cfg.ReportInterval, m.cfg.ResumeWindow, m.cfg.UsageInterval
	cfg.SpoolReserve = m.cfg.SpoolReserve
	return cfg.withDefaults()
}

func (c Config) checkLimits() error {
	if c.MaxParallelLayers <= 0 || c.Limits.Layers <= 0 || c.Limits.Entries <= 0 || c.Limits.LayerBytes <= 0 {
		return fmt.Errorf("image store: MaxParallelLayers and Limits must be greater than 0: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

func (c Config) layerLimits() layer.Limits {
	return layer.Limits{Entries: c.Limits.Entries, Bytes: c.Limits.LayerBytes}
}

func (c Config) pullConfig() pull.Config {
	return pull.Config{
		RegistriesConf: c.RegistriesConf, RegistriesConfDir: c.RegistriesConfDir,
		PolicyPath: c.PolicyPath, PolicyDir: c.PolicyDir, RegistriesD: c.RegistriesD, AuthFile: c.AuthFile,
		TempDir: filepath.Join(c.Root, stageDir), RunDir: c.RunRoot,
		MaxParallelLayers: c.MaxParallelLayers, ProgressWindow: c.ProgressWindow, ReportInterval: c.ReportInterval,
		Limits: pull.Limits{Layers: c.Limits.Layers, Config: maxConfigBytes},
	}
}

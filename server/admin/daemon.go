package admin

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"

	adminv1 "github.com/criserver/criserver/admin/v1"
)

// Reloader reads the configuration again and applies the changes.
type Reloader interface {
	// Reload returns an InvalidArgument error with all problems if the configuration is
	// invalid, and then changes nothing.
	Reload(ctx context.Context) (ReloadResult, error)
}

// ReloadResult describes the effect of a reload. All lists are sorted by key.
type ReloadResult struct {
	Changed     []SettingChange // keys whose new values are in effect
	NeedRestart []SettingChange // keys whose new values need a restart of the daemon
	Errors      []SettingError  // keys whose new values could not be applied
}

// SettingChange is a configuration key with its old and its new value in TOML syntax. The
// value of a key that does not exist is empty.
type SettingChange struct{ Key, Old, New string }

// SettingError is a configuration key whose new value could not be applied.
type SettingError struct {
	Key string
	Err error
}

// GetVersion returns the version of the daemon.
func (s *Server) GetVersion(context.Context, *adminv1.GetVersionRequest) (*adminv1.GetVersionResponse, error) {
	return s.cfg.Version, nil
}

// GetStatus returns the state of the daemon and of its parts.
func (s *Server) GetStatus(ctx context.Context, _ *adminv1.GetStatusRequest) (*adminv1.GetStatusResponse, error) {
	status := s.cfg.Status(ctx)
	status.Version = s.cfg.Version
	return status, nil
}

// GetConfig returns the configuration in effect.
func (s *Server) GetConfig(context.Context, *adminv1.GetConfigRequest) (*adminv1.GetConfigResponse, error) {
	return &adminv1.GetConfigResponse{Settings: s.cfg.Settings()}, nil
}

// Reload reads the configuration files again.
//
// Errors: InvalidArgument if the configuration is invalid, and Unimplemented if the daemon
// cannot reload.
func (s *Server) Reload(ctx context.Context, _ *adminv1.ReloadRequest) (*adminv1.ReloadResponse, error) {
	if s.cfg.Reloader == nil {
		return nil, fmt.Errorf("reload configuration: %w", errdefs.ErrNotImplemented)
	}
	result, err := s.cfg.Reloader.Reload(ctx)
	if err != nil {
		return nil, err
	}
	resp := &adminv1.ReloadResponse{Changed: changes(result.Changed), NeedRestart: changes(result.NeedRestart)}
	for _, e := range result.Errors {
		resp.Errors = append(resp.Errors, &adminv1.SettingError{Key: e.Key, Message: e.Err.Error()})
	}
	return resp, nil
}

func changes(list []SettingChange) []*adminv1.SettingChange {
	var out []*adminv1.SettingChange
	for _, c := range list {
		out = append(out, &adminv1.SettingChange{Key: c.Key, OldValue: c.Old, NewValue: c.New})
	}
	return out
}

// logLevels contains the log levels that the configuration also accepts.
var logLevels = []string{"trace", "debug", "info", "warning", "error"}

// GetLogLevel returns the level of the log.
func (s *Server) GetLogLevel(context.Context, *adminv1.GetLogLevelRequest) (*adminv1.GetLogLevelResponse, error) {
	return &adminv1.GetLogLevelResponse{Level: logrus.GetLevel().String()}, nil
}

// SetLogLevel changes the level of the log.
//
// Errors: InvalidArgument if the level is unknown.
func (s *Server) SetLogLevel(ctx context.Context, req *adminv1.SetLogLevelRequest) (*adminv1.SetLogLevelResponse, error) {
	if !slices.Contains(logLevels, req.GetLevel()) {
		return nil, fmt.Errorf("level: must be one of %s; is %q: %w", strings.Join(logLevels, ", "), req.GetLevel(), errdefs.ErrInvalidArgument)
	}
	level, err := logrus.ParseLevel(req.GetLevel())
	if err != nil {
		return nil, fmt.Errorf("level: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	previous := logrus.GetLevel()
	logrus.SetLevel(max(previous, level)) // logrus drops the message if one of the levels is below info
	logrus.WithContext(ctx).WithFields(logrus.Fields{"level": level.String(), "previous": previous.String()}).Info("the log level changes")
	logrus.SetLevel(level)
	return &adminv1.SetLogLevelResponse{PreviousLevel: previous.String()}, nil
}

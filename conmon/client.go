package conmon

import (
	"context"
	"errors"
)

// ReopenLog makes the monitor of a container open its log anew, after the old
// file was renamed. All that the container writes after ReopenLog has returned
// goes to the new file.
func ReopenLog(ctx context.Context, runDir string) error { return errors.ErrUnsupported }

// Resize sets the size of a container's terminal.
func Resize(ctx context.Context, runDir string, size Size) error { return errors.ErrUnsupported }

// ReadExit reads an exit record. The error is fs.ErrNotExist when there is none.
func ReadExit(path string) (Exit, error) { return Exit{}, errors.ErrUnsupported }

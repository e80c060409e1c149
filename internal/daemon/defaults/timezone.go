package defaults

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// CheckTimezone returns an error if a file is not a time zone in the format of tzfile(5). An empty path is no error.
// Containers follow later changes of the file, for example by timedatectl, when they are created.
func CheckTimezone(path string) error {
	if path == "" {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	magic := make([]byte, 4)
	_, err = io.ReadFull(f, magic)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if string(magic) != "TZif" {
		return fmt.Errorf("%s: not a time zone in the format of tzfile(5)", path)
	}
	return nil
}

package archive

import (
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
)

// FileList is the content of FilesFile: all entries of an archive before FilesFile, in their order. The path of a File
// is the name of the entry. A program that unpacks an archive does not keep the tar, so the signature in MACFile cannot
// be verified afterwards. With the list each unpacked file can be verified.
type FileList struct {
	Version int    `json:"version"`
	Files   []File `json:"files"`
	// MAC is the message authentication code of the list without MAC, in hexadecimal.
	MAC string `json:"mac"`
}

// parseFileList parses the content of FilesFile and checks all its rules. Errors: ErrInvalidArgument for content that
// breaks a rule, and ErrFailedPrecondition for another version of the format, or if a daemon with another key has
// written the list.
func parseFileList(b []byte, key Key) (*FileList, error) {
	var l FileList
	if err := json.Unmarshal(b, &l); err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if err := checkVersion(l.Version); err != nil {
		return nil, err
	}
	if err := l.verify(key); err != nil {
		return nil, err
	}
	return &l, l.check()
}

// check returns an ErrInvalidArgument if the list breaks a rule of the format.
func (l *FileList) check() error {
	if n := len(l.Files); n == 0 || n > MaxEntries {
		return fmt.Errorf("files must have 1 to %d entries, not %d: %w", MaxEntries, n, errdefs.ErrInvalidArgument)
	}
	if l.Files[0].Path != InfoFile {
		return fmt.Errorf("files[0].file must be %q, not %.300q: %w", InfoFile, l.Files[0].Path, errdefs.ErrInvalidArgument)
	}
	seen := make(map[string]bool, len(l.Files))
	for i, f := range l.Files {
		err := checkName(f.Path)
		switch {
		case err != nil:
		case f.Path == FilesFile || f.Path == MACFile || seen[f.Path]:
			err = fmt.Errorf("%q cannot be in the list, or occurs twice: %w", f.Path, errdefs.ErrInvalidArgument)
		case f.Size > maxSize:
			err = fmt.Errorf("size %d is greater than %d: %w", f.Size, int64(maxSize), errdefs.ErrInvalidArgument)
		default:
			err = f.check()
		}
		if err != nil {
			return fmt.Errorf("files[%d]: %w", i, err)
		}
		seen[f.Path] = true
	}
	return nil
}

// sign sets MAC.
func (l *FileList) sign(key Key) error {
	message, err := l.message()
	if err != nil {
		return err
	}
	l.MAC = key.code(kindFiles, message)
	return nil
}

// verify returns ErrFailedPrecondition if a daemon with another key has written the list, or if the list was changed.
func (l *FileList) verify(key Key) error {
	message, err := l.message()
	if err != nil {
		return err
	}
	return key.check(kindFiles, message, l.MAC)
}

// message returns the bytes that MAC authenticates: the list without MAC as JSON.
func (l *FileList) message() ([]byte, error) {
	unsigned := *l
	unsigned.MAC = ""
	return json.Marshal(unsigned)
}

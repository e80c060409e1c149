package archive

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/atomicfile"
)

// Key authenticates checkpoints. CRIU trusts its images, and images can make CRIU write to files of the host, for
// example. So the daemon restores only checkpoints that a daemon with the same key has written.
type Key []byte

// KeyFile is the name of the file with the key in the root directory of the daemon.
const KeyFile = "checkpoint-key"

const (
	// keySize is the size of a key in bytes.
	keySize = sha256.Size
	// macSize is the size of a message authentication code in hexadecimal, in bytes.
	macSize = 2 * sha256.Size
)

// Kinds of messages. The code of an archive is not the code of a manifest with the same bytes.
const (
	kindManifest = "manifest"
	kindArchive  = "archive"
	kindFiles    = "files"
)

var errNotAuthentic = fmt.Errorf("the checkpoint is not from this node, or was changed: its message authentication code is wrong: %w", errdefs.ErrFailedPrecondition)

// MakeKey reads the key of a file. If the file does not exist, MakeKey makes a new key and writes the file. The caller
// calls MakeKey from one goroutine at a time.
func MakeKey(path string) (Key, error) {
	key, err := ReadKey(path)
	if !errors.Is(err, os.ErrNotExist) {
		return key, err
	}
	key = make(Key, keySize)
	_, _ = rand.Read(key) // never fails
	if err := atomicfile.WriteSync(path, key, 0o600); err != nil {
		return nil, fmt.Errorf("write the key of checkpoints: %w", err)
	}
	return key, nil
}

// ReadKey reads the key of a file. The error wraps os.ErrNotExist and ErrFailedPrecondition if the file does not exist.
func ReadKey(path string) (Key, error) {
	key, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read the key of checkpoints: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	if err == nil && len(key) != keySize {
		err = fmt.Errorf("%s has %d bytes, want %d", path, len(key), keySize)
	}
	if err != nil {
		return nil, fmt.Errorf("read the key of checkpoints: %w", err)
	}
	return key, nil
}

// code returns the message authentication code of a message of a kind.
func (k Key) code(kind string, message []byte) string {
	mac := hmac.New(sha256.New, k)
	mac.Write([]byte(kind + "\x00"))
	mac.Write(message)
	return hex.EncodeToString(mac.Sum(nil))
}

// check returns errNotAuthentic if code is not the code of the message.
func (k Key) check(kind string, message []byte, code string) error {
	if !hmac.Equal([]byte(code), []byte(k.code(kind, message))) {
		return errNotAuthentic
	}
	return nil
}

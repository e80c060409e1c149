package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// TestKey checks that MakeKey makes one random key, and that a file of another size is refused.
func TestKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if _, err := ReadKey(path); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("missing key: got %v", err)
	}
	key, err := MakeKey(path)
	must(t, err)
	if again, err := MakeKey(path); err != nil || !bytes.Equal(again, key) || bytes.Equal(key, make(Key, keySize)) {
		t.Errorf("got the keys %x and %x, %v", key, again, err)
	}
	must(t, os.WriteFile(path, key[1:], 0o600))
	if _, err := MakeKey(path); err == nil {
		t.Error("a short key is accepted")
	}
}

// TestAuthenticReader checks that a reader accepts only an archive of the same key, without changes.
func TestAuthenticReader(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(t.Context(), &out, time.Unix(1e9, 0), testKey)
	must(t, w.Bytes(SpecFile, []byte("{}")))
	_, err := w.Close()
	must(t, err)
	read := func(b []byte, key Key) error {
		for r := NewAuthenticReader(bytes.NewReader(b), key); ; {
			e, err := r.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			_, _ = io.Copy(io.Discard, e)
		}
	}
	must(t, read(out.Bytes(), testKey))
	if err := read(out.Bytes(), bytes.Repeat([]byte{2}, keySize)); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("another key: got %v", err)
	}
	changed := bytes.Clone(out.Bytes())
	changed[512] = '['
	if err := read(changed, testKey); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("changed content: got %v", err)
	}
	var unsigned bytes.Buffer
	tw := tar.NewWriter(&unsigned)
	must(t, tw.WriteHeader(&tar.Header{Name: SpecFile, Typeflag: tar.TypeReg}))
	must(t, tw.Close())
	if err := read(unsigned.Bytes(), testKey); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("no code: got %v", err)
	}
	must(t, read(append(bytes.Clone(out.Bytes()), "rest"...), testKey)) // no reader of a tar reads the rest
	var more bytes.Buffer
	more.Write(out.Bytes()[:out.Len()-1024])
	tw = tar.NewWriter(&more)
	must(t, tw.WriteHeader(&tar.Header{Name: ConfigFile, Typeflag: tar.TypeReg}))
	must(t, tw.Close())
	if err := read(more.Bytes(), testKey); !errdefs.IsInvalidArgument(err) {
		t.Errorf("entry after the code: got %v", err)
	}
}

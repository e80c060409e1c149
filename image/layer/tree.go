package layer

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"maps"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// treeDigest returns the digest of the files in a directory: names, types, owners, modes, sizes, times
// and link targets. The content of files is left out, because to read it takes as long as to unpack the
// layer. The digest shows files that are missing, truncated or empty after a crash of the file system.
func treeDigest(ctx context.Context, dir string) (digest.Digest, error) {
	return hashTree(ctx, treeHash{sum: sha256.New()}, dir)
}

// SameTree reports whether two directories have the same tree digest, except for the times of
// whiteouts, which are not in the tar.
func SameTree(ctx context.Context, a, b string) (bool, error) {
	first, err := hashTree(ctx, treeHash{sum: sha256.New(), ignoreWhiteoutTimes: true}, a)
	if err != nil {
		return false, err
	}
	second, err := hashTree(ctx, treeHash{sum: sha256.New(), ignoreWhiteoutTimes: true}, b)
	return first == second, err
}

// treeHash hashes a tree.
type treeHash struct {
	sum                 hash.Hash
	ignoreWhiteoutTimes bool
}

func hashTree(ctx context.Context, h treeHash, dir string) (digest.Digest, error) {
	d, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	if err := h.addTree(ctx, d); err != nil {
		return "", fmt.Errorf("hash tree %s: %w", dir, err)
	}
	return digest.NewDigest(digest.SHA256, h.sum), nil
}

// addTree hashes an open directory, and closes it.
func (h treeHash) addTree(ctx context.Context, d *os.File) error {
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := h.addNode(ctx, d, name); err != nil {
			return err
		}
	}
	// Without an end mark, a file could move to the parent directory without a change of the digest.
	_, err = h.sum.Write([]byte{0})
	return errors.Join(err, context.Cause(ctx))
}

// addNode hashes an entry of a directory, and the tree below it.
func (h treeHash) addNode(ctx context.Context, d *os.File, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if isDir {
		st.Size, st.Nlink, st.Mtim = 0, 0, unix.Timespec{} // these depend on the file system
	}
	if h.ignoreWhiteoutTimes && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
		st.Mtim = unix.Timespec{}
	}
	record := append([]byte(name), 0)
	for _, v := range []uint64{
		uint64(st.Mode), uint64(st.Uid), uint64(st.Gid), uint64(st.Size),
		uint64(st.Rdev), uint64(st.Nlink), uint64(st.Mtim.Sec), //nolint:unconvert // the widths depend on the architecture
	} {
		record = binary.AppendUvarint(record, v)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		target := make([]byte, maxName)
		n, err := unix.Readlinkat(int(d.Fd()), name, target)
		if err != nil {
			return err
		}
		record = append(record, target[:n]...)
	}
	if _, err := h.sum.Write(record); err != nil || !isDir {
		return err
	}
	fd, err := unix.Openat(int(d.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return h.addTree(ctx, os.NewFile(uintptr(fd), name))
}

// Verify compares the files of a layer with the tree digest in its record. It returns ErrDataLoss if they
// differ, and ErrNotFound if there is no such layer. The layer can be deleted and stored again during the
// call.
func (s *Store) Verify(ctx context.Context, id digest.Digest) error {
	if err := s.Broken(id); err != nil {
		return fmt.Errorf("layer %s cannot be loaded: %w", id, err)
	}
	for {
		l, ok := s.Get(id)
		if !ok {
			return fmt.Errorf("layer %s: %w", id, errdefs.ErrNotFound)
		}
		err := l.verify(ctx)
		if current, _ := s.Get(id); err == nil || current == l {
			return err
		}
	}
}

// verify compares the files of the layer with the tree digest in its record.
func (l *Layer) verify(ctx context.Context) error {
	current, err := treeDigest(ctx, l.Dir())
	if err != nil {
		return fmt.Errorf("verify layer %s: %w", l.DiffID, err)
	}
	if current != l.Tree {
		return fmt.Errorf("files of layer %s differ from the unpacked files: %w", l.DiffID, errdefs.ErrDataLoss)
	}
	return nil
}

// Has reports whether the store has a layer, which may be broken.
func (s *Store) Has(id digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.layers[id] != nil || s.broken[id] != nil
}

// IDs returns the diff IDs of all layers, including broken layers.
func (s *Store) IDs() []digest.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]digest.Digest, 0, len(s.layers))
	for id := range s.layers {
		ids = append(ids, id)
	}
	ids = slices.AppendSeq(ids, maps.Keys(s.broken))
	slices.Sort(ids)
	return ids
}

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

// tree returns a digest over what is in a directory: names, kinds, owners,
// modes, sizes, times and link targets, but not the files' content, which would
// take as long as to unpack it. It finds files that are missing, cut short or
// empty after a crash of the file system.
func tree(ctx context.Context, dir string) (digest.Digest, error) {
	return sumTree(ctx, treeSum{sum: sha256.New()}, dir)
}

// SameTree says whether two directories have the same files, by all that tree
// compares except the times of whiteouts, which no tar has.
func SameTree(ctx context.Context, a, b string) (bool, error) {
	first, err := sumTree(ctx, treeSum{sum: sha256.New(), whiteoutsHaveNoTime: true}, a)
	if err != nil {
		return false, err
	}
	second, err := sumTree(ctx, treeSum{sum: sha256.New(), whiteoutsHaveNoTime: true}, b)
	return first == second, err
}

// treeSum adds up a tree.
type treeSum struct {
	sum                 hash.Hash
	whiteoutsHaveNoTime bool
}

func sumTree(ctx context.Context, s treeSum, dir string) (digest.Digest, error) {
	d, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	if err := s.addTree(ctx, d); err != nil {
		return "", fmt.Errorf("look through %s: %w", dir, err)
	}
	return digest.NewDigest(digest.SHA256, s.sum), nil
}

// addTree adds an open directory, and closes it.
func (s treeSum) addTree(ctx context.Context, d *os.File) error {
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := s.addNode(ctx, d, name); err != nil {
			return err
		}
	}
	// An end mark, so that a file cannot move to the parent unnoticed.
	_, err = s.sum.Write([]byte{0})
	return errors.Join(err, context.Cause(ctx))
}

func (s treeSum) addNode(ctx context.Context, d *os.File, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if isDir {
		st.Size, st.Nlink, st.Mtim = 0, 0, unix.Timespec{} // the file system's own affair
	}
	if s.whiteoutsHaveNoTime && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
		st.Mtim = unix.Timespec{}
	}
	record := append([]byte(name), 0)
	for _, v := range []uint64{
		uint64(st.Mode), uint64(st.Uid), uint64(st.Gid), uint64(st.Size),
		uint64(st.Rdev), uint64(st.Nlink), uint64(st.Mtim.Sec), //nolint:unconvert // their widths depend on the architecture
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
	if _, err := s.sum.Write(record); err != nil || !isDir {
		return err
	}
	fd, err := unix.Openat(int(d.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return s.addTree(ctx, os.NewFile(uintptr(fd), name))
}

// Verify compares a layer's files with what was unpacked. ErrDataLoss when they
// differ.
func (s *Store) Verify(ctx context.Context, id digest.Digest) error {
	if err := s.Broken(id); err != nil {
		return fmt.Errorf("layer %s cannot be loaded: %w", id, err)
	}
	l, ok := s.Get(id)
	if !ok {
		return fmt.Errorf("layer %s: %w", id, errdefs.ErrNotFound)
	}
	now, err := tree(ctx, l.Dir())
	if err != nil {
		return fmt.Errorf("verify layer %s: %w", id, err)
	}
	if now != l.Tree {
		return fmt.Errorf("files of layer %s are not those that were unpacked: %w", id, errdefs.ErrDataLoss)
	}
	return nil
}

// IDs returns the diff IDs of all layers, of the broken ones as well.
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

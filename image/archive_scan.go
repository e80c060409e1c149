package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/image/archive"
	"github.com/criserver/criserver/internal/atomicfile"
	"github.com/criserver/criserver/internal/steps"
)

// archiveSuffixes are the ends of the names of archives. Other files in an archive directory are ignored.
var archiveSuffixes = []string{".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.zstd", ".tar.xz", ".txz", ".tar.bz2"}

// LoadArchives loads the new and changed archives in the archive directories, one after the other. It logs each archive
// that cannot be loaded and continues with the next one. The images of loaded archives are pinned as long as the
// archives exist. An archive is read again if one of its images has been removed.
func (m *Manager) LoadArchives(ctx context.Context) {
	a := &m.archives
	select {
	case a.scan <- struct{}{}:
		defer func() { <-a.scan }()
	case <-ctx.Done():
		return
	}
	a.mu.Lock()
	dirs, records := slices.Clone(a.dirs), maps.Clone(a.records)
	a.mu.Unlock()
	s := &archiveScan{Manager: m, records: records, kept: make(map[string]archiveRecord)}
	for _, dir := range dirs {
		s.loadDir(ctx, dir)
	}
	if ctx.Err() != nil {
		return
	}
	a.mu.Lock()
	a.failures, a.loading = s.failures, ""
	a.mu.Unlock()
	if !maps.EqualFunc(s.kept, s.records, sameRecord) {
		s.save(ctx, s.kept)
	}
}

func sameRecord(a, b archiveRecord) bool {
	return a.sameFile(b) && a.Incomplete == b.Incomplete && slices.Equal(a.Images, b.Images)
}

func (r archiveRecord) sameFile(o archiveRecord) bool {
	return r.Size == o.Size && r.ModTime == o.ModTime && r.Device == o.Device && r.Inode == o.Inode
}

// archiveScan is one run of LoadArchives.
type archiveScan struct {
	*Manager
	records  map[string]archiveRecord // of all archives that were loaded, also of deleted ones
	kept     map[string]archiveRecord // the records of the archives that exist
	failures []ArchiveFailure
}

// fail logs a failure and adds it to the status.
func (s *archiveScan) fail(ctx context.Context, path string, err error) {
	s.failures = append(s.failures, ArchiveFailure{path, err})
	logrus.WithContext(ctx).WithField("path", path).WithError(err).Error("load archive of images")
}

// loadDir loads the archives of one directory. If the directory cannot be read, its images stay pinned.
func (s *archiveScan) loadDir(ctx context.Context, dir string) {
	entries, err := readArchiveDir(dir)
	if err != nil {
		s.fail(ctx, dir, err)
		for path, r := range s.records {
			if filepath.Dir(path) == filepath.Clean(dir) {
				s.kept[path] = r
			}
		}
		return
	}
	for _, e := range entries {
		if path := filepath.Join(dir, e.Name()); ctx.Err() == nil && isArchiveName(e.Name()) {
			s.loadFile(ctx, path)
		}
	}
}

// isArchiveName reports whether a file in an archive directory is an archive. Programs that copy files use names that
// begin with a dot until a file is complete.
func isArchiveName(name string) bool {
	return !strings.HasPrefix(name, ".") && slices.ContainsFunc(archiveSuffixes, func(suffix string) bool { return strings.HasSuffix(name, suffix) })
}

// loadFile loads one archive, unless it was loaded before.
func (s *archiveScan) loadFile(ctx context.Context, path string) {
	before, known := s.records[path]
	if known {
		s.kept[path] = before // if the archive cannot be loaded, its former images stay pinned
	}
	f, record, err := openArchive(path)
	if err != nil {
		s.fail(ctx, path, err)
		return
	}
	defer f.Close()
	if known && !before.Incomplete && before.sameFile(record) && s.hasImages(before.Images) {
		return
	}
	s.archives.setLoading(path)
	log := logrus.WithContext(ctx).WithField("path", path)
	log.Info("loading archive of images")
	loaded, err := s.loadArchiveFile(ctx, f, record.Size)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		s.fail(ctx, path, err)
		return
	}
	for _, l := range loaded {
		if l.Err != nil {
			record.Incomplete = true
			s.fail(ctx, path, l.Err)
			continue
		}
		record.Images = append(record.Images, l.Image.ID)
		log.WithFields(logrus.Fields{"image": l.Image.ID.String(), "names": l.Names}).Info("image loaded")
	}
	s.kept[path], s.records[path] = record, record
	s.save(ctx, s.records)
}

// hasImages reports whether the store has all images.
func (s *archiveScan) hasImages(ids []ID) bool {
	x := s.index.Load()
	return !slices.ContainsFunc(ids, func(id ID) bool { return x.byID[id] == nil })
}

// loadArchiveFile loads the images of an open archive. It first decompresses a compressed archive to a temporary file.
func (m *Manager) loadArchiveFile(ctx context.Context, f *os.File, size int64) (_ []LoadedImage, err error) {
	ctx, step := steps.Begin(ctx, steps.ImageLoad, steps.Object{}, steps.Source(f.Name()))
	defer step.EndWith(&err)
	compressed, err := archive.IsCompressed(f)
	if err != nil {
		return nil, err
	}
	o := loadOptions{path: f.Name(), key: f.Name()}
	if !compressed {
		return m.loadArchive(ctx, f, size, o)
	}
	spooled, size, err := m.spool(ctx, f, size)
	if err != nil {
		return nil, err
	}
	defer spooled.Close()
	return m.loadArchive(ctx, spooled, size, o)
}

// save replaces the records. If they cannot be written, the archives are read again after the next start.
func (s *archiveScan) save(ctx context.Context, records map[string]archiveRecord) {
	s.setArchiveRecords(maps.Clone(records))
	b, err := json.Marshal(archiveRecords{Version: recordVersion, Archives: records})
	if err == nil {
		err = atomicfile.WriteSync(s.dir(archivesFile), b, 0o600)
	}
	if err != nil {
		s.logWarning(ctx)(fmt.Errorf("write the records of archives: %w", err))
	}
}

// readArchiveDir returns the entries of an archive directory, sorted by name.
func readArchiveDir(dir string) ([]fs.DirEntry, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if err := checkOwner(info); err != nil {
		return nil, err
	}
	return os.ReadDir(dir)
}

// openArchive opens an archive in an archive directory.
func openArchive(path string) (*os.File, archiveRecord, error) {
	// O_NONBLOCK keeps a named pipe from blocking the open. It has no effect on regular files.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, archiveRecord{}, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("archive is no regular file: %w", errdefs.ErrInvalidArgument)
	default:
		err = checkOwner(info)
	}
	if err != nil {
		return nil, archiveRecord{}, errors.Join(err, f.Close())
	}
	st := info.Sys().(*syscall.Stat_t)
	return f, archiveRecord{Size: st.Size, ModTime: info.ModTime().UnixNano(), Device: st.Dev, Inode: st.Ino}, nil
}

// checkOwner refuses files that other users can write. A user who can write an archive decides which programs
// containers run.
func checkOwner(info fs.FileInfo) error {
	st := info.Sys().(*syscall.Stat_t)
	if uid := int(st.Uid); uid != 0 && uid != os.Geteuid() {
		return fmt.Errorf("must belong to root, belongs to user %d: %w", uid, errdefs.ErrFailedPrecondition)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("only the owner must have the permission to write, the mode is %04o: %w", info.Mode().Perm(), errdefs.ErrFailedPrecondition)
	}
	return nil
}

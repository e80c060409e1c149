package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
)

// archivesFile is the file below the root with the archives that were loaded.
const archivesFile = "archives.json"

// archiveDirs is the state of the archive directories.
type archiveDirs struct {
	scan chan struct{} // has the capacity one; full while LoadArchives runs

	mu       sync.Mutex // guards the fields below; never held during disk I/O
	dirs     []string
	records  map[string]archiveRecord // by path
	failures []ArchiveFailure
	loading  string // the path of the archive that is being loaded, or ""
}

// archiveRecord describes an archive that was loaded. A file that still has the same values is not read again.
type archiveRecord struct {
	Size       int64  `json:"size"`
	ModTime    int64  `json:"mtime"` // in nanoseconds of Unix time
	Device     uint64 `json:"device"`
	Inode      uint64 `json:"inode"`
	Images     []ID   `json:"images"`
	Incomplete bool   `json:"incomplete,omitempty"` // some of the images could not be loaded
}

// archiveRecords is the content of archivesFile.
type archiveRecords struct {
	Version  int                      `json:"version"`
	Archives map[string]archiveRecord `json:"archives"`
}

// ArchiveFailure is an archive or an archive directory that could not be loaded.
type ArchiveFailure struct {
	Path string
	Err  error
}

// ArchiveStatus is the state of the archive directories.
type ArchiveStatus struct {
	Dirs     []string
	Archives int    // loaded archives
	Images   int    // images that are pinned because of these archives
	Loading  string // the path of the archive that is being loaded, or ""
	Failures []ArchiveFailure
}

func (a *archiveDirs) init(dirs []string) {
	a.scan, a.dirs, a.records = make(chan struct{}, 1), dirs, make(map[string]archiveRecord)
}

func (a *archiveDirs) setDirs(dirs []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.dirs = dirs
}

func (a *archiveDirs) setLoading(path string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.loading = path
}

// ArchiveStatus returns the state of the archive directories.
func (m *Manager) ArchiveStatus() ArchiveStatus {
	a := &m.archives
	a.mu.Lock()
	defer a.mu.Unlock()
	return ArchiveStatus{
		Dirs: slices.Clone(a.dirs), Archives: len(a.records), Images: len(a.images()), Loading: a.loading, Failures: slices.Clone(a.failures),
	}
}

// images returns the images of all loaded archives. The caller holds mu.
func (a *archiveDirs) images() map[ID]bool {
	all := make(map[ID]bool)
	for _, r := range a.records {
		for _, id := range r.Images {
			all[id] = true
		}
	}
	return all
}

// restoreArchives reads the records of loaded archives, so that their images are pinned before
// LoadArchives runs. Without the records, all archives are read again.
func (m *Manager) restoreArchives(report func(error)) {
	b, err := os.ReadFile(m.dir(archivesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var all archiveRecords
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err == nil && all.Version != recordVersion {
		err = fmt.Errorf("%s has version %d, and this daemon reads version %d: %w", archivesFile, all.Version, recordVersion, errdefs.ErrNotImplemented)
	}
	if err != nil {
		report(fmt.Errorf("read the records of archives, all archives are read again: %w", err))
		return
	}
	m.setArchiveRecords(all.Archives)
}

// setArchiveRecords replaces the records, and pins the images of the archives.
func (m *Manager) setArchiveRecords(records map[string]archiveRecord) {
	a := &m.archives
	a.mu.Lock()
	if a.records = records; records == nil {
		a.records = make(map[string]archiveRecord)
	}
	loaded := a.images()
	a.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if maps.Equal(loaded, m.pinned.loaded) {
		return
	}
	m.pinned.loaded = loaded
	old := m.index.Load()
	m.index.Store(newIndex(old.all, old.broken, m.pinned))
}

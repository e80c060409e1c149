package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

// workSize is the size of the work disk in the format of mke2fs. The file is sparse.
const workSize = "4G"

// Work describes a work disk.
type Work struct {
	Top   string   // top directory of the project
	Arch  string   // architecture of the guest
	Agent string   // path of the agent
	Disk  string   // path of the image to make
	Extra []string // further files and directories, relative to the Tree of the architecture
}

// Optional are the directories of bin that a work disk has only if Extra names them, because they are large and only
// one suite needs them.
var Optional = []string{"bin/containerd", "bin/kubernetes", "bin/upgrade"}

// ProgramsDir is the directory in the guest of the programs that Debian 13 does not have: runsc.
const ProgramsDir = WorkDir + "/programs"

// hostPrograms returns the paths of programs of this machine for ProgramsDir. They are static, so
// that they run on any system of the same architecture.
func hostPrograms(arch string) []string {
	if arch != runtime.GOARCH {
		return nil
	}
	path, err := exec.LookPath("runsc")
	if err != nil {
		return nil // the tests that need it fail and say so
	}
	return []string{path}
}

// MakeWork makes the image of a disk with the agent, the programs of ProgramsDir and the project:
// the files that git tracks, bin without the Optional directories, the test images, and the extra files.
func MakeWork(ctx context.Context, w Work) error {
	stage, err := os.MkdirTemp(filepath.Dir(w.Disk), "stage")
	if err != nil {
		return err
	}
	defer os.RemoveAll(stage)
	project := filepath.Join(stage, "criserver")
	tracked, err := exec.CommandContext(ctx, "git", "-C", w.Top, "ls-files", "-z").Output()
	if err != nil {
		return fmt.Errorf("list the project's files: %w", err)
	}
	for _, name := range strings.Split(strings.TrimRight(string(tracked), "\x00"), "\x00") {
		if err := link(filepath.Join(w.Top, name), filepath.Join(project, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, name := range append([]string{"bin", ".cache/images/base"}, w.Extra...) {
		if err := linkTree(Tree(w.Top, w.Arch), project, name); err != nil {
			return err
		}
	}
	for _, program := range hostPrograms(w.Arch) {
		if err := link(program, filepath.Join(stage, filepath.Base(ProgramsDir), filepath.Base(program))); err != nil {
			return err
		}
	}
	if err := link(w.Agent, filepath.Join(stage, "agent")); err != nil {
		return err
	}
	return makeDisk(ctx, stage, w.Disk, workSize, WorkLabel)
}

// linkTree links a file, or the files of a directory except the directories in it that are Optional, from one directory
// into another.
func linkTree(from, to, name string) error {
	top, err := filepath.EvalSymlinks(filepath.Join(from, name))
	if err != nil {
		return err
	}
	return filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if rel != "." && slices.Contains(Optional, filepath.Join(name, rel)) {
				return filepath.SkipDir
			}
			return nil
		}
		return link(path, filepath.Join(to, name, rel))
	})
}

// link makes a hard link, or a copy where that is not possible.
func link(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	err := os.Link(from, to)
	if !errors.Is(err, syscall.EXDEV) {
		return err
	}
	body, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, body, info.Mode().Perm())
}

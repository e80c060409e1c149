// Package guest builds the root file systems of virtual machines with
// debootstrap, boots them with qemu, and runs commands in them. A guest has no
// network: commands and files go through a virtio serial port.
package guest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// recipeVersion changes when the steps of Build change, so that cached disks are made again.
const recipeVersion = "1"

// diskSize is the size of the root disk in the format of mke2fs. The file is sparse.
const diskSize = "6G"

// Base has the files from which a guest boots.
type Base struct {
	Release
	Disk, Kernel, Initrd string // paths on the host
}

// Build returns the disk, kernel and initrd of a release below dir, which is .cache/vm in the top
// directory of the project. It makes them if they are missing or were made from another recipe,
// which takes some minutes and needs Debian's packages.
func Build(ctx context.Context, dir string, r Release) (Base, error) {
	home := filepath.Join(dir, r.Name)
	b := Base{r, filepath.Join(home, "root.ext4"), filepath.Join(home, "vmlinuz"), filepath.Join(home, "initrd.img")}
	if err := os.MkdirAll(home, 0o755); err != nil {
		return b, err
	}
	unlock, err := lock(filepath.Join(home, "lock"))
	if err != nil {
		return b, err
	}
	defer unlock()
	top := filepath.Dir(filepath.Dir(dir))
	want, err := r.stamp(top)
	if err != nil {
		return b, err
	}
	if have, err := os.ReadFile(filepath.Join(home, "stamp")); err == nil && string(have) == want {
		return b, nil
	}
	if err := b.make(ctx, top, home); err != nil {
		return b, fmt.Errorf("build guest %s: %w", r.Name, err)
	}
	return b, os.WriteFile(filepath.Join(home, "stamp"), []byte(want), 0o644)
}

// stamp identifies the recipe of a release.
func (r Release) stamp(top string) (string, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, recipeVersion, r.Suite, r.Arch, r.Kernel, r.Packages, r.Setup != nil, diskSize)
	files := systemFiles()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(sum, "%s %d\n%s", name, len(files[name]), files[name])
	}
	fmt.Fprintln(sum, masked)
	for _, name := range r.Files {
		body, err := os.ReadFile(filepath.Join(top, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(body), body)
	}
	if r.Setup != nil {
		fmt.Fprintln(sum, setupVersion)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func (b Base) make(ctx context.Context, top, home string) error {
	ctx, release := untilSignal(ctx)
	defer release()
	if err := os.Remove(filepath.Join(home, "stamp")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	root := filepath.Join(home, "root")
	if err := os.RemoveAll(root); err != nil {
		return err
	}
	defer os.RemoveAll(root)
	if err := bootstrap(ctx, b.Release, root); err != nil {
		return err
	}
	if err := configure(ctx, b.Release, top, root); err != nil {
		return err
	}
	for pattern, to := range map[string]string{"vmlinuz-*": b.Kernel, "initrd.img-*": b.Initrd} {
		found, err := filepath.Glob(filepath.Join(root, "boot", pattern))
		if err != nil || len(found) != 1 {
			return fmt.Errorf("want one file boot/%s, found %v", pattern, found)
		}
		if err := os.Rename(found[0], to); err != nil {
			return err
		}
	}
	return makeDisk(ctx, root, b.Disk, diskSize, "root")
}

// untilSignal returns a context that ends also when this process receives SIGINT or SIGTERM, so that the caller can
// clean up. Then release sends the signal to this process again, which ends the process.
func untilSignal(parent context.Context) (ctx context.Context, release func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	done := make(chan struct{})
	var received os.Signal
	go func() {
		defer close(done)
		select {
		case received = <-signals:
			cancel(fmt.Errorf("received the signal %v", received))
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-done
		signal.Stop(signals)
		if received != nil {
			_ = unix.Kill(os.Getpid(), received.(syscall.Signal))
		}
	}
}

// bootstrap installs the packages. Their archives are kept nowhere. debootstrap runs in mount and PID namespaces of its
// own: if it is killed, the kernel ends the programs in the new root and removes the mounts.
func bootstrap(ctx context.Context, r Release, root string) (err error) {
	mirror, err := mirror(ctx)
	if err != nil {
		return err
	}
	restore, err := emulate(r.Arch)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, restore()) }()
	return command(ctx, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "debootstrap", "--variant=minbase", "--arch="+r.Arch,
		"--include="+strings.Join(append([]string{r.Kernel}, r.Packages...), ","), r.Suite, root, mirror)
}

// mirror returns the address of the Debian archive that this machine itself installs from.
func mirror(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(SITE) $(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("list package sources: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) == 4 && f[0] == "Debian" && f[1] == "Debian" {
			return f[3], nil
		}
	}
	return "", errors.New("no package source of this machine is Debian's archive")
}

// makeDisk makes an ext4 file system with the content of a directory, without mounting anything.
func makeDisk(ctx context.Context, content, disk, size, label string) error {
	if err := os.Remove(disk); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return command(ctx, "mke2fs", "-q", "-t", "ext4", "-L", label, "-d", content, disk, size)
}

// command runs a command and returns its output with the error. The command ends with this process.
func command(ctx context.Context, name string, args ...string) error {
	// The kernel sends Pdeathsig when the thread that started the process ends, so the thread must remain.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		const tail = 4096
		out = bytes.TrimSpace(out)
		return fmt.Errorf("%s: %w\n%s", name, err, out[max(0, len(out)-tail):])
	}
	return nil
}

func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return func() { f.Close() }, nil
}

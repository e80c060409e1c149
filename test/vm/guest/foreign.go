package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// binfmtDir is where the kernel lists interpreters for programs of other architectures.
const binfmtDir = "/proc/sys/fs/binfmt_misc"

// arm64Interpreter registers the user mode emulator for programs of arm64 as in the documentation of qemu: the
// start of their ELF header, and which of its bits matter. The flag F opens the emulator now, so that it
// works in a chroot.
const arm64Interpreter = `:criserver-arm64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:` +
	`\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:F`

// emulate lets this machine execute programs of the architecture until restore is called.
func emulate(arch string) (restore func() error, err error) {
	if arch == runtime.GOARCH {
		return func() error { return nil }, nil
	}
	if arch != "arm64" {
		return nil, fmt.Errorf("there is no emulator for %s", arch)
	}
	var steps []func() error
	restore = func() error {
		var errs []error
		for i := len(steps) - 1; i >= 0; i-- {
			errs = append(errs, steps[i]())
		}
		return errors.Join(errs...)
	}
	if _, err := os.Stat(filepath.Join(binfmtDir, "register")); errors.Is(err, os.ErrNotExist) {
		if err := unix.Mount("binfmt_misc", binfmtDir, "binfmt_misc", 0, ""); err != nil {
			return nil, fmt.Errorf("mount %s: %w", binfmtDir, err)
		}
		steps = append(steps, func() error { return unix.Unmount(binfmtDir, 0) })
	}
	for _, known := range []string{"qemu-aarch64", "criserver-arm64"} {
		if _, err := os.Stat(filepath.Join(binfmtDir, known)); err == nil {
			return restore, nil
		}
	}
	if err := os.WriteFile(filepath.Join(binfmtDir, "register"), []byte(arm64Interpreter), 0o200); err != nil {
		return nil, errors.Join(fmt.Errorf("register the emulator for %s: %w", arch, err), restore())
	}
	steps = append(steps, func() error {
		return os.WriteFile(filepath.Join(binfmtDir, "criserver-arm64"), []byte("-1"), 0o200)
	})
	return restore, nil
}

package namespace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// A network namespace can have a name in addition to its pin: a further bind mount in a directory in which other
// programs look for network namespaces, such as /run/netns (ip-netns(8)). The pin keeps the namespace in existence if
// another program deletes the name.

// PrepareNames creates the directory of the names, and makes it a mount point whose mounts propagate to other mount
// namespaces, as `ip netns add` does. Without a mount point, the mount that `ip netns add` would make there later would
// hide the names that exist, and the daemon could not remove them.
func PrepareNames(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	share := func() error { return unix.Mount("", dir, "", unix.MS_SHARED|unix.MS_REC, "") }
	err := share()
	if errors.Is(err, unix.EINVAL) { // dir is no mount point
		if err = unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""); err == nil {
			err = share()
		}
	}
	if err != nil {
		return fmt.Errorf("make %s a shared mount: %w", dir, err)
	}
	return nil
}

// Name gives the namespace that is pinned at path a name. A name that exists is an error.
func Name(path, name string) error {
	if err := pin(path, name); err != nil {
		return fmt.Errorf("name network namespace: %w", err)
	}
	return nil
}

// IsName reports whether a name refers to the namespace that is pinned at path.
func IsName(name, path string) bool {
	a, err := os.Stat(name)
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// Unname removes the name of the namespace that is pinned at path. If the name refers to another namespace, a program
// has replaced it, and Unname leaves it alone. A name that does not exist is no error.
func Unname(name, path string) error {
	if Pinned(path) && Pinned(name) && !IsName(name, path) {
		return nil
	}
	if err := Unmount(name); err != nil {
		return fmt.Errorf("remove name of network namespace: %w", err)
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove name of network namespace: %w", err)
	}
	return nil
}

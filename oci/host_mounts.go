package oci

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// restrictions pairs the flags of statfs(2) with the options of mount(8).
var restrictions = []struct {
	flag   uint64
	option string
}{
	{unix.ST_RDONLY, "ro"}, {unix.ST_NOSUID, "nosuid"}, {unix.ST_NODEV, "nodev"}, {unix.ST_NOEXEC, "noexec"},
}

// Restrictions returns the options by which the host has restricted the mount
// that a path is on. A bind mount has them too, until it is mounted again with
// other options; OCI runtimes do that for any option, and then drop what is not
// said again.
func Restrictions(path string) ([]string, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(path, &st)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("statfs %s: %w", path, err)
		}
		break
	}
	var options []string
	for _, r := range restrictions {
		if uint64(st.Flags)&r.flag != 0 { // the type of Flags depends on the architecture
			options = append(options, r.option)
		}
	}
	return options, nil
}

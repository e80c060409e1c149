package checkpoint

import (
	"runtime"

	"golang.org/x/sys/unix"
)

const architecture = runtime.GOARCH

// kernelRelease returns the release of the kernel, or "".
func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

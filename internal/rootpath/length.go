package rootpath

import (
	"strings"

	"golang.org/x/sys/unix"
)

// maxName is NAME_MAX of the usual file systems, in bytes.
const maxName = 255

// LengthRule is the rule that TooLong checks, for messages.
const LengthRule = "must have less than 4096 bytes, and at most 255 between two slashes"

// TooLong says whether the kernel refuses a path for its length alone
// (ENAMETOOLONG).
func TooLong(path string) bool {
	if len(path) >= unix.PathMax {
		return true
	}
	for name := range strings.SplitSeq(path, "/") {
		if len(name) > maxName {
			return true
		}
	}
	return false
}

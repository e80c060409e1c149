// Package boot tells one boot of the machine from another.
package boot

import (
	"fmt"
	"os"
	"strings"
)

// ID returns the kernel's random identifier of this boot.
func ID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

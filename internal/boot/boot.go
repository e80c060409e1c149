// Package boot identifies the current boot of the machine.
package boot

import (
	"fmt"
	"os"
	"strings"
)

// ID returns the random id that the kernel has generated for the current boot.
func ID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

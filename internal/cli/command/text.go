package command

import (
	"fmt"
	"strings"
)

// ShortID returns the part of an id that tables show, as crictl does.
func ShortID(id string) string { return id[:min(len(id), 13)] }

// ShortDigest returns the beginning of a digest without its algorithm.
func ShortDigest(d string) string {
	_, hex, ok := strings.Cut(d, ":")
	if !ok {
		return d
	}
	return ShortID(hex)
}

// YesNo returns "yes" or "no".
func YesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// ByteSize returns a number of bytes with a binary unit and three significant digits, as in
// "1.50 MiB".
func ByteSize(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1023.5 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	digits := 2
	for limit := 9.995; value >= limit && digits > 0; limit *= 10 {
		digits--
	}
	return fmt.Sprintf("%.*f %ciB", digits, value, units[unit])
}

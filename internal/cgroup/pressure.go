package cgroup

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// Pressure tells how long tasks waited for a resource (PSI,
// Documentation/accounting/psi.rst of the kernel).
type Pressure struct {
	Some Stall // at least one task waited
	Full Stall // all tasks waited
}

// Stall is the time lost. The averages are percentages over the last 10, 60 and
// 300 seconds.
type Stall struct {
	Total                time.Duration
	Avg10, Avg60, Avg300 float64
}

// readPressure returns nil for a file that is not there, or cannot be read as
// PSI was turned off when the machine was booted.
func readPressure(file string) *Pressure {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	p := &Pressure{}
	for line := range strings.Lines(string(b)) {
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch kind {
		case "some":
			p.Some = parseStall(rest)
		case "full":
			p.Full = parseStall(rest)
		}
	}
	return p
}

func parseStall(text string) Stall {
	var s Stall
	for field := range strings.FieldsSeq(text) {
		key, value, _ := strings.Cut(field, "=")
		if key == "total" {
			us, _ := strconv.ParseInt(value, 10, 64)
			s.Total = time.Duration(us) * time.Microsecond
			continue
		}
		v, _ := strconv.ParseFloat(value, 64)
		switch key {
		case "avg10":
			s.Avg10 = v
		case "avg60":
			s.Avg60 = v
		case "avg300":
			s.Avg300 = v
		}
	}
	return s
}

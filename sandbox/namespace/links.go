package namespace

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/criserver/criserver/internal/osthread"
	"golang.org/x/sys/unix"
)

// Link is what has gone through a network interface since it was made.
type Link struct {
	Name                                    string
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// Visit calls fn on one thread that is given up afterwards; links reads the
// interfaces of the network namespace pinned at path. One thread for many
// namespaces makes a list of pods cheap.
func Visit(fn func(links func(path string) ([]Link, error))) {
	_ = osthread.Run(func() error {
		fn(links)
		return nil
	})
}

// links makes its thread enter the namespace for good.
func links(path string) ([]Link, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("enter %s: %w", path, err)
	}
	b, err := os.ReadFile("/proc/thread-self/net/dev")
	if err != nil {
		return nil, err
	}
	return parseLinks(string(b)), nil
}

// parseLinks reads proc_pid_net(5), dev: two lines of headings, then one for
// each interface with eight figures received and eight sent.
func parseLinks(text string) []Link {
	var out []Link
	for line := range strings.Lines(text) {
		// A name may hold anything but a slash, a colon or white space.
		name, figures, ok := strings.Cut(strings.TrimSpace(line), ":")
		f := strings.Fields(figures)
		if !ok || len(f) < 16 {
			continue
		}
		out = append(out, Link{
			Name:    name,
			RxBytes: figure(f[0]), RxPackets: figure(f[1]), RxErrors: figure(f[2]), RxDropped: figure(f[3]),
			TxBytes: figure(f[8]), TxPackets: figure(f[9]), TxErrors: figure(f[10]), TxDropped: figure(f[11]),
		})
	}
	return out
}

func figure(s string) uint64 {
	v, _ := strconv.ParseUint(s, 10, 64)
	return v
}

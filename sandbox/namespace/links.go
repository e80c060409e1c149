package namespace

import (
	"os"
	"strconv"
	"strings"

	"github.com/criserver/criserver/internal/osthread"
)

// Link has the counters of a network interface. The kernel counts from the creation of the interface.
type Link struct {
	Name                                    string
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// Visit calls fn on a thread that ends when fn returns. fn calls links for each network namespace that it wants to
// read; links returns the interfaces of the network namespace pinned at path. One thread reads many namespaces, because
// a thread for each pod would make the list of all pods expensive.
func Visit(fn func(links func(path string) ([]Link, error))) {
	_ = osthread.Run(func() error {
		fn(links)
		return nil
	})
}

// links moves the calling thread into the namespace and reads the interfaces.
func links(path string) ([]Link, error) {
	if err := enterNet(path); err != nil {
		return nil, err
	}
	b, err := os.ReadFile("/proc/thread-self/net/dev")
	if err != nil {
		return nil, err
	}
	return parseLinks(string(b)), nil
}

// parseLinks reads the file net/dev of proc_pid_net(5): two lines of headings, then a line for each
// interface with eight counters of what was received and eight counters of what was sent.
func parseLinks(text string) []Link {
	var out []Link
	for line := range strings.Lines(text) {
		// The kernel allows every character in a name except slash, colon and white space.
		name, counters, ok := strings.Cut(strings.TrimSpace(line), ":")
		f := strings.Fields(counters)
		if !ok || len(f) < 16 {
			continue
		}
		out = append(out, Link{
			Name:    name,
			RxBytes: counter(f[0]), RxPackets: counter(f[1]), RxErrors: counter(f[2]), RxDropped: counter(f[3]),
			TxBytes: counter(f[8]), TxPackets: counter(f[9]), TxErrors: counter(f[10]), TxDropped: counter(f[11]),
		})
	}
	return out
}

// counter parses a counter. It returns 0 for text that is not a number.
func counter(s string) uint64 {
	v, _ := strconv.ParseUint(s, 10, 64)
	return v
}

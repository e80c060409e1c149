package inspect

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strings"
)

// readDNS reads the resolv.conf of a pod.
func readDNS(in DNSInput) DNS {
	d := DNS{Path: in.Path, FromHost: in.FromHost}
	if in.Path == "" {
		return d
	}
	b, err := os.ReadFile(in.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.Missing = true
	case err != nil:
		d.Error = err.Error()
	default:
		d.Differs = !bytes.Equal(b, in.Want)
		d.parse(string(b))
	}
	return d
}

// parse reads the lines of resolv.conf(5). As in the resolver, the last line with search domains is valid.
func (d *DNS) parse(text string) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			d.Servers = append(d.Servers, f[1])
		case "search", "domain":
			d.Searches = f[1:]
		case "options":
			d.Options = append(d.Options, f[1:]...)
		}
	}
}

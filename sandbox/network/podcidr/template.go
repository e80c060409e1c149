package podcidr

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"text/template"

	"github.com/containerd/errdefs"
)

// maxSize is the maximum size of a template, and of the result of a template, in bytes.
const maxSize = 1 << 20

// Data is the data for the template.
type Data struct {
	PodCIDR       string   // the first range
	PodCIDRRanges []string // all ranges
	Routes        []string // the default routes of the address families of the ranges
}

// newData returns the data for ranges that Parse has returned.
func newData(ranges []netip.Prefix) Data {
	d := Data{PodCIDR: ranges[0].String()}
	for _, p := range ranges {
		route := "::/0"
		if p.Addr().Is4() {
			route = "0.0.0.0/0"
		}
		d.PodCIDRRanges = append(d.PodCIDRRanges, p.String())
		if !slices.Contains(d.Routes, route) {
			d.Routes = append(d.Routes, route)
		}
	}
	return d
}

// Render reads the template in a file and executes it with ranges that Parse has returned. check returns an error if
// the result is not a valid network. The error is ErrFailedPrecondition.
func Render(file string, ranges []netip.Prefix, check func(result []byte) error) ([]byte, error) {
	t, err := parseTemplate(file)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := t.Execute(&limited{&out, maxSize}, newData(ranges)); err != nil {
		return nil, invalidTemplate(file, err)
	}
	if err := check(out.Bytes()); err != nil {
		return nil, invalidTemplate(file, fmt.Errorf("the result is not a valid network: %w", err))
	}
	return out.Bytes(), nil
}

// CheckTemplate returns ErrFailedPrecondition if a file is not a template.
func CheckTemplate(file string) error {
	_, err := parseTemplate(file)
	return err
}

// parseTemplate reads and parses a template.
func parseTemplate(file string) (*template.Template, error) {
	info, err := os.Stat(file)
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxSize) {
		err = fmt.Errorf("not a regular file of at most %d bytes", maxSize)
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, invalidTemplate(file, err)
	}
	t, err := template.New(filepath.Base(file)).Parse(string(text))
	if err != nil {
		return nil, invalidTemplate(file, err)
	}
	return t, nil
}

func invalidTemplate(file string, err error) error {
	return fmt.Errorf("cni.conf_template %s: %w: %w", file, err, errdefs.ErrFailedPrecondition)
}

// limited is a writer that fails when more than room bytes are written.
type limited struct {
	to   *bytes.Buffer
	room int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.room -= len(p); l.room < 0 {
		return 0, fmt.Errorf("the result has more than %d bytes", maxSize)
	}
	return l.to.Write(p)
}

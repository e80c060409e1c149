package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/criserver/criserver/internal/atomicfile"
	"github.com/sirupsen/logrus"
)

// generated is the file, in the first of the configuration directories, that is
// made from the template. It is the daemon's own.
const generated = "10-criserver-pod-cidr.conflist"

const (
	maxCIDRs = 16
	// maxRendered bounds what a template may bring forth; it is maxConfSize.
	maxRendered = maxConfSize
)

// CIDRs is what a template is filled with.
type CIDRs struct {
	PodCIDR       string   // the first
	PodCIDRRanges []string // all
	Routes        []string // the default routes of their families
}

// SetPodCIDR makes a network configuration for the address ranges of the node's
// pods, a list separated by commas, from the template. It is written when it
// differs from the one there is, and never where somebody else has configured
// the default network: theirs is kept. Without a template or without a range
// nothing is done. Errors: ErrInvalidArgument for what is no such list,
// ErrFailedPrecondition for a template that is of no use.
func (n *Network) SetPodCIDR(ctx context.Context, list string) error {
	if list == "" {
		return nil
	}
	cidrs, err := parseCIDRs(list)
	if err != nil {
		return err
	}
	log := logrus.WithContext(ctx).WithField("podCIDR", list)
	if n.cfg.ConfTemplate == "" {
		log.Debug("pod CIDR is ignored: there is no cni.conf_template")
		return nil
	}
	content, err := render(n.cfg.ConfTemplate, cidrs)
	if err != nil {
		return err
	}
	n.template.Lock()
	defer n.template.Unlock()
	file := filepath.Join(n.cfg.ConfDirs[0], generated)
	if l := n.load().list; l != nil && l.file != file {
		log.WithField("file", l.file).Info("pod CIDR is ignored: the network is configured already")
		return nil
	}
	if before, err := os.ReadFile(file); err == nil && bytes.Equal(before, content) {
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(n.cfg.ConfDirs[0], 0o755); err != nil {
		return err
	}
	if err := atomicfile.WriteSync(file, content, 0o600); err != nil {
		return err
	}
	log.WithField("file", file).Info("network configuration written")
	return nil
}

func parseCIDRs(list string) (CIDRs, error) {
	var c CIDRs
	parts := strings.Split(list, ",")
	if len(parts) > maxCIDRs {
		return c, fmt.Errorf("has %d ranges, more than %d: %w", len(parts), maxCIDRs, errdefs.ErrInvalidArgument)
	}
	for _, part := range parts {
		p, err := netip.ParsePrefix(part)
		if err != nil || p.Bits() == 0 || p.Addr().Is4In6() {
			return c, fmt.Errorf("%q must be a range of addresses like 10.244.1.0/24, or several separated by commas: %w", part, errdefs.ErrInvalidArgument)
		}
		route := "::/0"
		if p.Addr().Is4() {
			route = "0.0.0.0/0"
		}
		c.PodCIDRRanges = append(c.PodCIDRRanges, p.Masked().String())
		if !slices.Contains(c.Routes, route) {
			c.Routes = append(c.Routes, route)
		}
	}
	c.PodCIDR = c.PodCIDRRanges[0]
	return c, nil
}

// render fills the template, which is read each time, and checks that the result
// is what CNI takes.
func render(file string, c CIDRs) ([]byte, error) {
	useless := func(err error) error {
		return fmt.Errorf("cni.conf_template %s: %w: %w", file, err, errdefs.ErrFailedPrecondition)
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, useless(err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxConfSize {
		return nil, useless(fmt.Errorf("it must be a regular file of at most %d bytes", maxConfSize))
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, useless(err)
	}
	t, err := template.New(filepath.Base(file)).Parse(string(text))
	if err != nil {
		return nil, useless(err)
	}
	var out bytes.Buffer
	if err := t.Execute(&limited{&out, maxRendered}, c); err != nil {
		return nil, useless(err)
	}
	conf, err := libcni.NetworkConfFromBytes(out.Bytes())
	if err == nil {
		err = check(conf)
	}
	if err != nil {
		return nil, useless(fmt.Errorf("what it makes is no network: %w", err))
	}
	return out.Bytes(), nil
}

// limited fails when more than room bytes are written.
type limited struct {
	to   *bytes.Buffer
	room int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.room -= len(p); l.room < 0 {
		return 0, fmt.Errorf("it makes more than %d bytes", maxRendered)
	}
	return l.to.Write(p)
}

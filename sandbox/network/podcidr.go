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

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/criserver/criserver/internal/atomicfile"
	"github.com/sirupsen/logrus"
)

// generatedFile is the name of the file that the daemon generates from the template. The file is in the first of the
// configuration directories.
const generatedFile = "10-criserver-pod-cidr.conflist"

const (
	maxCIDRs = 16
	// maxRendered is the maximum size of the result of a template.
	maxRendered = maxConfSize
)

// CIDRs is the data for the template.
type CIDRs struct {
	PodCIDR       string   // the first range
	PodCIDRRanges []string // all ranges
	Routes        []string // the default routes of the address families of the ranges
}

// SetPodCIDR generates the default network from the template. list has the address ranges for the pods of the node,
// separated by commas. SetPodCIDR writes the file only if the content has changed, and does nothing if another file has
// the default network or if the list is empty. If there is no template, the default bridge uses the ranges, as soon as
// it is in use. The error is ErrInvalidArgument if the list is invalid, and ErrFailedPrecondition if the template is
// invalid.
func (n *Network) SetPodCIDR(ctx context.Context, list string) error {
	if list == "" {
		return nil
	}
	cidrs, err := parseCIDRs(list)
	if err != nil {
		return err
	}
	n.lastPodCIDR.Store(&list)
	cfg := n.cfg()
	log := logrus.WithContext(ctx).WithField("podCIDR", list)
	if cfg.ConfTemplate == "" && cfg.DefaultBridge {
		return n.recordPodCIDR(ctx, list)
	}
	if cfg.ConfTemplate == "" {
		log.Debug("pod CIDR is ignored: cni.conf_template is not set")
		return nil
	}
	content, err := render(cfg.ConfTemplate, cidrs)
	if err != nil {
		return err
	}
	n.podCIDR.Lock()
	defer n.podCIDR.Unlock()
	file := filepath.Join(cfg.ConfDirs[0], generatedFile)
	if l := n.load(cfg).list; l != nil && l.file != file {
		log.WithField("file", l.file).Info("pod CIDR is ignored: another file has the default network")
		return nil
	}
	if before, err := os.ReadFile(file); err == nil && bytes.Equal(before, content) {
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(cfg.ConfDirs[0], 0o755); err != nil {
		return err
	}
	if err := atomicfile.WriteSync(file, content, 0o600); err != nil {
		return err
	}
	log.WithField("file", file).Info("network configuration was generated from the pod CIDR")
	return nil
}

// parseCIDRs parses a list of ranges that are separated by commas.
func parseCIDRs(list string) (CIDRs, error) {
	var c CIDRs
	parts := strings.Split(list, ",")
	if len(parts) > maxCIDRs {
		return c, fmt.Errorf("pod CIDR has %d ranges, more than %d: %w", len(parts), maxCIDRs, errdefs.ErrInvalidArgument)
	}
	for _, part := range parts {
		p, err := netip.ParsePrefix(part)
		if err != nil || p.Bits() == 0 || p.Addr().Is4In6() {
			return c, fmt.Errorf("pod CIDR %q is not a range of addresses like 10.244.1.0/24: %w", part, errdefs.ErrInvalidArgument)
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

// render reads the template, executes it, and validates the result.
func render(file string, c CIDRs) ([]byte, error) {
	t, err := parseTemplate(file)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := t.Execute(&limited{&out, maxRendered}, c); err != nil {
		return nil, invalidTemplate(file, err)
	}
	conf, err := libcni.NetworkConfFromBytes(out.Bytes())
	if err == nil {
		err = check(conf)
	}
	if err != nil {
		return nil, invalidTemplate(file, fmt.Errorf("the result is not a valid network: %w", err))
	}
	return out.Bytes(), nil
}

// limited is a writer that fails when more than room bytes are written.
type limited struct {
	to   *bytes.Buffer
	room int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.room -= len(p); l.room < 0 {
		return 0, fmt.Errorf("the result has more than %d bytes", maxRendered)
	}
	return l.to.Write(p)
}

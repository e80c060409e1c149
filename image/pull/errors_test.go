package pull

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/image/layer"
	"github.com/criserver/criserver/image/registry"
)

// TestClasses has errors as they come from a registry, with the class and the
// first word that the kubelet gets, and whether complete layers are kept.
func TestClasses(t *testing.T) {
	answer := func(code int) error { return fmt.Errorf("fetch: %w", &registry.StatusError{Code: code}) }
	for name, c := range map[string]struct {
		err         error
		is          func(error) bool
		unavailable bool
		keeps       bool
	}{
		"400":                {answer(http.StatusBadRequest), errdefs.IsInvalidArgument, false, true},
		"401":                {answer(http.StatusUnauthorized), errdefs.IsUnauthorized, false, true},
		"403":                {answer(http.StatusForbidden), errdefs.IsPermissionDenied, false, true},
		"404":                {answer(http.StatusNotFound), errdefs.IsNotFound, false, true},
		"429":                {answer(http.StatusTooManyRequests), errdefs.IsUnavailable, true, true},
		"503":                {answer(http.StatusServiceUnavailable), errdefs.IsUnavailable, true, true},
		"token server":       {fmt.Errorf("no token: %w", errdefs.ErrUnavailable), errdefs.IsUnavailable, true, true},
		"broken connection":  {fmt.Errorf("%w: %w", layer.ErrSource, io.ErrUnexpectedEOF), errdefs.IsUnavailable, true, true},
		"another digest":     {fmt.Errorf("%w: digest", layer.ErrSource), errdefs.IsDataLoss, false, true},
		"refused layer":      {fmt.Errorf("name: %w", errdefs.ErrInvalidArgument), errdefs.IsInvalidArgument, false, false},
		"full disk":          {fmt.Errorf("write: %w", errdefs.ErrResourceExhausted), errdefs.IsResourceExhausted, false, false},
		"full disk, bare":    {&os.PathError{Op: "write", Path: "layer.json", Err: unix.ENOSPC}, errdefs.IsResourceExhausted, false, false},
		"full quota, bare":   {&os.PathError{Op: "write", Path: "layer.json", Err: unix.EDQUOT}, errdefs.IsResourceExhausted, false, false},
		"broken disk":        {&os.PathError{Op: "write", Path: "layer.json", Err: unix.EIO}, errdefs.IsUnknown, false, true},
		"reset connection":   {os.NewSyscallError("read", unix.ECONNRESET), errdefs.IsUnavailable, true, true},
		"refused connection": {&net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", unix.ENETUNREACH)}, errdefs.IsUnavailable, true, true},
		"encrypted layer":    {fmt.Errorf("layer: %w", errdefs.ErrNotImplemented), errdefs.IsNotImplemented, false, false},
		"classed before too": {classify(answer(http.StatusBadGateway)), errdefs.IsUnavailable, true, true},
	} {
		got := classify(c.err)
		if !c.is(got) || errors.Is(got, ErrRegistryUnavailable) != c.unavailable || KeepsLayers(got) != c.keeps {
			t.Errorf("%s: %v, keeps %t", name, got, KeepsLayers(got))
		}
		if c.unavailable && (!strings.HasPrefix(got.Error(), "RegistryUnavailable: ") || strings.Count(got.Error(), "RegistryUnavailable") != 1) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

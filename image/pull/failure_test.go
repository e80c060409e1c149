package pull

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestFailureOf(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want Failure
	}{
		{fmt.Errorf("write layer: %w: %w", unix.ENOSPC, errdefs.ErrResourceExhausted), FailureDiskFull},
		{fmt.Errorf("config is too large: %w", errdefs.ErrResourceExhausted), FailureLimit},
		{fmt.Errorf("%w: %w", ErrSignatureValidationFailed, errdefs.ErrPermissionDenied), FailurePolicy},
		{redact(errdefs.ErrPermissionDenied), FailureAuth},
		{errdefs.ErrUnauthenticated, FailureAuth},
		{fmt.Errorf("%w: %w", ErrRegistryUnavailable, errdefs.ErrUnavailable), FailureNetwork},
		{errdefs.ErrNotFound, FailureNotFound},
		{errdefs.ErrDataLoss, FailureDigest},
		{errdefs.ErrInvalidArgument, FailureInvalid},
		{errdefs.ErrNotImplemented, FailureInvalid},
		{context.Canceled, FailureCancelled},
		{context.DeadlineExceeded, FailureTimeout},
		{errors.New("strange"), FailureOther},
	} {
		got := FailureOf(tc.err)
		if got != tc.want || !slices.Contains(Failures(), got) {
			t.Errorf("%v: got %q, want %q", tc.err, got, tc.want)
		}
	}
}

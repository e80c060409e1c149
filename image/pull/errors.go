package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/docker/distribution/registry/api/errcode"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/signature"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/image/layer"
	"github.com/criserver/criserver/image/registry"
)

// The texts that the kubelet looks for at the beginning of a failed pull's
// message, as in k8s.io/cri-api/pkg/errors.
var (
	// ErrRegistryUnavailable is an error of all failures to reach a registry.
	ErrRegistryUnavailable = errors.New("RegistryUnavailable")
	// ErrSignatureValidationFailed is an error of all pulls that the signature
	// policy forbids.
	ErrSignatureValidationFailed = errors.New("SignatureValidationFailed")
)

// inOrder joins the errors of several names, with one whose text the kubelet
// looks for at the front.
func inOrder(errs []error) error {
	slices.SortStableFunc(errs, func(a, b error) int { return rank(a) - rank(b) })
	return errors.Join(errs...)
}

func rank(err error) int {
	switch {
	case errors.Is(err, ErrSignatureValidationFailed):
		return 0
	case errors.Is(err, ErrRegistryUnavailable):
		return 1
	}
	return 2
}

// classify gives err a class of errdefs.
func classify(err error) error {
	var (
		requirement signature.PolicyRequirementError
		bad         signature.InvalidSignatureError
		artifact    manifest.NonImageArtifactError
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &requirement), errors.As(err, &bad):
		return fmt.Errorf("%w: %w: %w", ErrSignatureValidationFailed, err, errdefs.ErrPermissionDenied)
	case errors.As(err, &artifact):
		return fmt.Errorf("what the name stands for is an artifact and no container image: %w: %w", err, errdefs.ErrNotImplemented)
	case errdefs.IsUnavailable(err) && !errors.Is(err, ErrRegistryUnavailable):
		return fmt.Errorf("%w: %w", ErrRegistryUnavailable, err)
	case hasClass(err):
		return err
	}
	class := classOf(err)
	if errors.Is(class, errdefs.ErrUnavailable) {
		return fmt.Errorf("%w: %w: %w", ErrRegistryUnavailable, err, class)
	}
	return fmt.Errorf("%w: %w", err, class)
}

func hasClass(err error) bool {
	return errdefs.IsInvalidArgument(err) || errdefs.IsNotFound(err) || errdefs.IsResourceExhausted(err) ||
		errdefs.IsNotImplemented(err) || errdefs.IsDataLoss(err) || errdefs.IsUnavailable(err) ||
		errdefs.IsFailedPrecondition(err) || errdefs.IsPermissionDenied(err) || errdefs.IsUnauthorized(err) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

func classOf(err error) error {
	var (
		unauthorized docker.ErrUnauthorizedForCredentials
		status       docker.UnexpectedHTTPStatusError
		answer       *registry.StatusError
		coder        errcode.ErrorCoder
		network      net.Error
	)
	switch {
	case errors.As(err, &unauthorized):
		return errdefs.ErrUnauthenticated
	case errors.Is(err, docker.ErrTooManyRequests):
		return errdefs.ErrUnavailable
	case errors.As(err, &answer):
		return classOfStatus(answer.Code)
	case errors.As(err, &status):
		return classOfStatus(status.StatusCode)
	case errors.As(err, &coder):
		return classOfStatus(coder.ErrorCode().Descriptor().HTTPStatusCode)
	case errors.As(err, &network), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.EPIPE):
		return errdefs.ErrUnavailable
	case errors.Is(err, layer.ErrSource):
		// The connection held, so it is the content: the digest is another.
		return errdefs.ErrDataLoss
	}
	return errdefs.ErrUnknown
}

func classOfStatus(code int) error {
	switch {
	case code == http.StatusUnauthorized:
		return errdefs.ErrUnauthenticated
	case code == http.StatusForbidden:
		return errdefs.ErrPermissionDenied
	case code == http.StatusNotFound, code == http.StatusGone:
		return errdefs.ErrNotFound
	case code == http.StatusBadRequest:
		return errdefs.ErrInvalidArgument
	case code == http.StatusTooManyRequests, code >= http.StatusInternalServerError:
		return errdefs.ErrUnavailable
	}
	return errdefs.ErrUnknown
}

// KeepsLayers says whether the layers that are there after a failed pull are
// worth keeping: not if the image itself is refused, nor if there is no space.
// What a registry refuses today, a pull with another credential may get tomorrow.
func KeepsLayers(err error) bool {
	if answer := new(registry.StatusError); errors.As(err, &answer) {
		return true
	}
	// Without an answer of a registry, "not found" means that the image is for another platform.
	return !errdefs.IsInvalidArgument(err) && !errdefs.IsNotImplemented(err) && !errdefs.IsNotFound(err) && !errdefs.IsResourceExhausted(err)
}

package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/distribution/registry/api/errcode"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/signature"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/image/layer"
	"github.com/criserver/criserver/image/registry"
)

// The kubelet looks for these texts at the beginning of the message of a failed pull. They are
// defined in k8s.io/cri-api/pkg/errors.
var (
	// ErrRegistryUnavailable is in the chain of all errors of registries that cannot be reached.
	ErrRegistryUnavailable = errors.New("RegistryUnavailable")
	// ErrSignatureValidationFailed is in the chain of the errors of all pulls that the signature
	// policy forbids.
	ErrSignatureValidationFailed = errors.New("SignatureValidationFailed")
)

// joinErrors joins the errors of several candidates for a name. An error whose text the kubelet
// looks for is the first one.
func joinErrors(errs []error) error {
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

// classify adds an error of errdefs to err, unless err has one.
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
		return fmt.Errorf("not a container image but an artifact: %w: %w", err, errdefs.ErrNotImplemented)
	case errdefs.IsUnavailable(err) && !errors.Is(err, ErrRegistryUnavailable):
		return fmt.Errorf("%w: %w", ErrRegistryUnavailable, err)
	case hasClass(err):
		return err
	case isDiskFull(err):
		return fmt.Errorf("%w: %w", err, errdefs.ErrResourceExhausted)
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

// classOf returns the error of errdefs for an error of a registry or of the network.
func classOf(err error) error {
	var (
		unauthorized docker.ErrUnauthorizedForCredentials
		status       docker.UnexpectedHTTPStatusError
		response     *registry.StatusError
		coder        errcode.ErrorCoder
	)
	switch {
	case errors.As(err, &unauthorized):
		return errdefs.ErrUnauthenticated
	case errors.Is(err, docker.ErrTooManyRequests):
		return errdefs.ErrUnavailable
	case errors.As(err, &response):
		return classOfStatus(response.Code)
	case errors.As(err, &status):
		return classOfStatus(status.StatusCode)
	case errors.As(err, &coder):
		return classOfStatus(coder.ErrorCode().Descriptor().HTTPStatusCode)
	case isNetworkError(err), errors.Is(err, io.ErrUnexpectedEOF):
		return errdefs.ErrUnavailable
	case errors.Is(err, layer.ErrSource):
		// The connection did not break, so the digest of the content is wrong.
		return errdefs.ErrDataLoss
	}
	return errdefs.ErrUnknown
}

// isNetworkError reports whether err is an error of the network, and not of the local disk: every error number of a
// system call is a net.Error, too.
func isNetworkError(err error) bool {
	var network net.Error
	if !errors.As(err, &network) {
		return false
	}
	number, ok := network.(unix.Errno)
	return !ok || number == unix.ECONNRESET || number == unix.ECONNREFUSED || number == unix.EPIPE
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

// KeepsLayers reports whether the layers of a pull that failed with err are kept for the next
// pull. They are not kept if the image itself is refused or if the disk is full. They are kept if
// the registry refused the pull, because a pull with another credential may succeed.
func KeepsLayers(err error) bool {
	if response := new(registry.StatusError); errors.As(err, &response) {
		return true
	}
	// Without a response of a registry, "not found" means that the image is for another platform.
	return !errdefs.IsInvalidArgument(err) && !errdefs.IsNotImplemented(err) && !errdefs.IsNotFound(err) && !errdefs.IsResourceExhausted(err)
}

// maxErrorLength is the maximum length of an error text in bytes. The text can quote a response
// of a registry.
const maxErrorLength = 2 << 10

// urlUser and urlQuery match the parts of a URL that can be a credential: the user information,
// and the query, which has the signature in addresses of object stores that registries redirect to.
var (
	urlUser  = regexp.MustCompile(`(\w://)[^/@\s"]+@`)
	urlQuery = regexp.MustCompile(`(\w://[^\s?"]+\?)[^\s"]+`)
)

// redactedError is an error whose text has no user information and queries of URLs. The text is
// logged, and everybody who may read the events of a pod can read it. A long text is cut in the
// middle: the kubelet needs the beginning, and the cause is at the end.
type redactedError struct{ err error }

func (e redactedError) Error() string {
	text := urlUser.ReplaceAllString(e.err.Error(), "${1}…@")
	text = urlQuery.ReplaceAllString(text, "${1}…")
	if len(text) <= maxErrorLength {
		return text
	}
	return strings.ToValidUTF8(text[:maxErrorLength/2], "") + " … " + strings.ToValidUTF8(text[len(text)-maxErrorLength/2:], "")
}

func (e redactedError) Unwrap() error { return e.err }

// redact returns err as a redactedError, or nil.
func redact(err error) error {
	if err == nil {
		return nil
	}
	return redactedError{err}
}

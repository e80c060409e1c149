package server

import (
	"context"
	"errors"
	"strings"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/criserver/criserver/image"
)

// classes pairs each class of error with its gRPC code, the most telling first:
// an error may be of several classes when it joins several.
var classes = []struct {
	is   func(error) bool
	code codes.Code
}{
	// The kubelet knows these two by the first word of an Unknown error.
	{func(err error) bool { return errors.Is(err, image.ErrRegistryUnavailable) }, codes.Unknown},
	{func(err error) bool { return errors.Is(err, image.ErrSignatureValidationFailed) }, codes.Unknown},
	{errdefs.IsInvalidArgument, codes.InvalidArgument},
	{errdefs.IsNotFound, codes.NotFound},
	{errdefs.IsAlreadyExists, codes.AlreadyExists},
	{errdefs.IsFailedPrecondition, codes.FailedPrecondition},
	{errdefs.IsPermissionDenied, codes.PermissionDenied},
	{errdefs.IsUnauthorized, codes.Unauthenticated},
	{errdefs.IsResourceExhausted, codes.ResourceExhausted},
	{errdefs.IsOutOfRange, codes.OutOfRange},
	{errdefs.IsNotImplemented, codes.Unimplemented},
	{errdefs.IsAborted, codes.Aborted},
	{errdefs.IsDataLoss, codes.DataLoss},
	{errdefs.IsUnavailable, codes.Unavailable},
	{func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }, codes.DeadlineExceeded},
	{func(err error) bool { return errors.Is(err, context.Canceled) }, codes.Canceled},
}

// grpcError gives an error the code of its class. Errors of no class are
// Unknown, as the kubelet expects of what it can only retry.
func grpcError(err error) error {
	if err == nil {
		return nil
	}
	if s, ok := status.FromError(err); ok {
		return status.Error(s.Code(), clip(s.Message(), maxErrorText))
	}
	for _, c := range classes {
		if c.is(err) {
			return status.Error(c.code, clip(err.Error(), maxErrorText))
		}
	}
	return status.Error(codes.Unknown, clip(err.Error(), maxErrorText))
}

// maxErrorText bounds the bytes of an error's message, as it may quote what a
// client sent; maxLoggedText bounds what the log repeats of a request. Both are
// more than what is sound ever needs.
const maxErrorText, maxLoggedText = 4 << 10, 256

// clip leaves of a text that is too long its first and its last part: a message
// has its subject in front and its cause at the end.
func clip(text string, bytes int) string {
	const gap = " … "
	if len(text) <= bytes {
		return text
	}
	half := (bytes - len(gap)) / 2
	return strings.ToValidUTF8(text[:half], "") + gap + strings.ToValidUTF8(text[len(text)-half:], "")
}

// missing is the error for a request without a part that it must have.
func missing(field string) error {
	return status.Errorf(codes.InvalidArgument, "%s must be given", field)
}

// ifFound makes an operation idempotent: what is not there is already gone.
func ifFound(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

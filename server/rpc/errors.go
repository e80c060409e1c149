package rpc

import (
	"context"
	"errors"
	"strings"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/criserver/criserver/image"
)

// errorCodes maps classes of errors to gRPC codes. An error that joins several
// errors can belong to several classes; the first class in this list applies.
var errorCodes = []struct {
	is   func(error) bool
	code codes.Code
}{
	// The kubelet recognizes these two by the first word of an Unknown error.
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

// Error returns err as a gRPC error with the code of its class. An error
// without a class is Unknown, which the kubelet retries.
func Error(err error) error {
	if err == nil {
		return nil
	}
	if s, ok := status.FromError(err); ok {
		return status.Error(s.Code(), truncateText(s.Message(), maxErrorText))
	}
	for _, c := range errorCodes {
		if c.is(err) {
			return status.Error(c.code, truncateText(err.Error(), maxErrorText))
		}
	}
	return status.Error(codes.Unknown, truncateText(err.Error(), maxErrorText))
}

const (
	// maxErrorText bounds the message of an error, in bytes, because the message
	// can quote text from the request.
	maxErrorText = 4 << 10
	// maxLoggedText bounds a value from a request in the log, in bytes.
	maxLoggedText = 256
)

// truncateText removes the middle of a text of more than limit bytes. It keeps the
// beginning, where a message has its object, and the end, where it has its cause.
func truncateText(text string, limit int) string {
	const ellipsis = " … "
	if len(text) <= limit {
		return text
	}
	half := (limit - len(ellipsis)) / 2
	return strings.ToValidUTF8(text[:half], "") + ellipsis + strings.ToValidUTF8(text[len(text)-half:], "")
}

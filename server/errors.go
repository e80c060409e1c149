package server

import (
	"context"
	"errors"

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
		return s.Err()
	}
	for _, c := range classes {
		if c.is(err) {
			return status.Error(c.code, err.Error())
		}
	}
	return status.Error(codes.Unknown, err.Error())
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

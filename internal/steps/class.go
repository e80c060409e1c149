package steps

import (
	"context"
	"errors"

	"github.com/containerd/errdefs"
)

// Class is the class of an error, with few values, so that it can be the value of a label of a metric. The class of a
// step without an error is "".
type Class string

// The classes of errors. ClassOther is the class of an error that has no other class, for example of a system
// call or of a program that the daemon executes.
const (
	ClassCanceled     Class = "canceled"
	ClassTimeout      Class = "timeout"
	ClassInvalid      Class = "invalid_argument"
	ClassNotFound     Class = "not_found"
	ClassExists       Class = "already_exists"
	ClassPrecondition Class = "failed_precondition"
	ClassUnavailable  Class = "unavailable"
	ClassExhausted    Class = "resource_exhausted"
	ClassDenied       Class = "permission_denied"
	ClassUnsupported  Class = "unimplemented"
	ClassDataLoss     Class = "data_loss"
	ClassOther        Class = "other"
)

// classes contains the tests for the classes of errdefs. An error that joins several errors can belong to several
// classes; the first class in this list applies.
var classes = []struct {
	is    func(error) bool
	class Class
}{
	{errdefs.IsInvalidArgument, ClassInvalid},
	{errdefs.IsNotFound, ClassNotFound},
	{errdefs.IsAlreadyExists, ClassExists},
	{errdefs.IsFailedPrecondition, ClassPrecondition},
	{errdefs.IsPermissionDenied, ClassDenied},
	{errdefs.IsUnauthorized, ClassDenied},
	{errdefs.IsResourceExhausted, ClassExhausted},
	{errdefs.IsNotImplemented, ClassUnsupported},
	{errdefs.IsDataLoss, ClassDataLoss},
	{func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }, ClassTimeout},
	{func(err error) bool { return errors.Is(err, context.Canceled) }, ClassCanceled},
	{errdefs.IsUnavailable, ClassUnavailable},
}

// ClassOf returns the class of an error.
func ClassOf(err error) Class {
	if err == nil {
		return ""
	}
	for _, c := range classes {
		if c.is(err) {
			return c.class
		}
	}
	return ClassOther
}

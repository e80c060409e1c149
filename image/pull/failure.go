package pull

import (
	"context"
	"errors"
	"slices"

	"github.com/containerd/errdefs"
)

// Failure is the class of the failure of a pull.
type Failure string

// The classes of failures.
const (
	FailureAuth      Failure = "auth"      // the registry refuses the credential, or wants one
	FailureNotFound  Failure = "not_found" // no such image, or none for this platform
	FailureNetwork   Failure = "network"   // the registry cannot be reached, or fails to answer
	FailureTimeout   Failure = "timeout"   // no progress
	FailureDiskFull  Failure = "disk_full"
	FailureLimit     Failure = "limit"     // the image exceeds a limit of the configuration
	FailureDigest    Failure = "digest"    // the content does not have the digest
	FailurePolicy    Failure = "policy"    // the signature policy refuses the image
	FailureInvalid   Failure = "invalid"   // the name or the image is malformed or not supported
	FailureCancelled Failure = "cancelled" // all callers have left
	FailureOther     Failure = "other"
)

// failures contains the tests for the classes. The first class in this list whose test is true applies.
var failures = []struct {
	class Failure
	is    func(error) bool
}{
	{FailureDiskFull, isDiskFull},
	{FailurePolicy, func(err error) bool { return errors.Is(err, ErrSignatureValidationFailed) }},
	{FailureAuth, func(err error) bool { return errdefs.IsUnauthorized(err) || errdefs.IsPermissionDenied(err) }},
	{FailureDigest, errdefs.IsDataLoss},
	{FailureLimit, errdefs.IsResourceExhausted},
	{FailureCancelled, func(err error) bool { return errors.Is(err, context.Canceled) }},
	{FailureTimeout, func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
	{FailureNetwork, errdefs.IsUnavailable},
	{FailureNotFound, errdefs.IsNotFound},
	{FailureInvalid, func(err error) bool { return errdefs.IsInvalidArgument(err) || errdefs.IsNotImplemented(err) }},
}

// Failures returns all classes of failures.
func Failures() []Failure {
	all := []Failure{FailureOther}
	for _, f := range failures {
		all = append(all, f.class)
	}
	slices.Sort(all)
	return all
}

// FailureOf returns the class of an error of a pull.
func FailureOf(err error) Failure {
	for _, f := range failures {
		if f.is(err) {
			return f.class
		}
	}
	return FailureOther
}

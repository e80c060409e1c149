package pull

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"
)

// acceptAnything is the policy for the copy of an image that verify has accepted.
func acceptAnything() *signature.Policy {
	return &signature.Policy{Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()}}
}

// verify evaluates a policy that demands signatures. Only the source of
// containers/image can read those of all kinds. What it finds must be the
// manifest that src has read and that is copied afterwards.
func (p *Puller) verify(ctx context.Context, a attempt, s source, policy *signature.PolicyContext, src *originSource) (err error) {
	sys := *a.sys
	if !s.only {
		dir, err := p.narrow(&sys, a.name, s)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	other, err := a.openOther(ctx, &sys)
	if err != nil {
		return classify(err)
	}
	defer other.Close()
	b, mediaType, err := other.GetManifest(ctx, nil)
	if err != nil {
		return classify(err)
	}
	if !bytes.Equal(b, src.body) {
		return fmt.Errorf("%w: %s has changed while it was verified: %w", ErrRegistryUnavailable, a.name, errdefs.ErrUnavailable)
	}
	instance, err := a.judge(b, manifest.NormalizedMIMEType(mediaType))
	if err != nil {
		return err
	}
	if _, err := policy.IsRunningImageAllowed(ctx, image.UnparsedInstance(other, instance)); err != nil {
		return notValidated(ctx, err)
	}
	return nil
}

// openOther opens the source of containers/image, which repeats nothing itself.
func (a attempt) openOther(ctx context.Context, sys *types.SystemContext) (types.ImageSource, error) {
	ref, err := docker.NewReference(a.name)
	if err != nil {
		return nil, err
	}
	for i := 1; ; i++ {
		src, err := ref.NewImageSource(ctx, sys)
		if err == nil || i == attempts || ctx.Err() != nil || !errdefs.IsUnavailable(classify(err)) {
			return src, err
		}
	}
}

// notValidated gives a class to the error of a policy. A signature that is no
// signature, or cannot be read, says neither yes nor no to the policy: all that
// is known is that the image was not validated.
func notValidated(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if class := classify(err); !errdefs.IsUnknown(class) {
		return class
	}
	return fmt.Errorf("%w: %w: %w", ErrSignatureValidationFailed, err, errdefs.ErrPermissionDenied)
}

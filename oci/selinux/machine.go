package selinux

import (
	"errors"

	"github.com/opencontainers/selinux/go-selinux"
	"github.com/opencontainers/selinux/go-selinux/label"
)

// machine is the kernel and the policy that it has loaded.
type machine struct{}

func (machine) Init(options []string) (process, mount string, err error) {
	return label.InitLabels(options)
}

func (machine) Reserve(label string) error {
	if err := selinux.ReserveLabelV2(label); !errors.Is(err, selinux.ErrMCSAlreadyExists) {
		return err
	}
	return nil // two pods asked for the same level
}

func (machine) Release(label string) { selinux.ReleaseLabel(label) }

func (machine) Check(label string) error { return selinux.SecurityCheckContext(label) }

func (machine) FileLabel(path string) (string, error) { return selinux.FileLabel(path) }

func (machine) SetFileLabel(path, label string) error { return selinux.SetFileLabel(path, label) }

func (machine) Relabel(path, label string) error { return selinux.Chcon(path, label, true) }

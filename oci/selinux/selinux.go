// Package selinux assigns SELinux labels to pods and containers. Each pod gets a
// pair of categories that no other pod has. The containers of the pod and their
// files have the same pair, so a process of one pod cannot access the files of
// another pod, although the types of their labels are the same. The package owns
// the reserved categories. It knows nothing of the states of pods and containers.
package selinux

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/selinux/go-selinux"
	"github.com/opencontainers/selinux/go-selinux/label"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// system contains the operations on the host and its policy.
type system interface {
	// Init returns the labels of a container, with unique categories unless options set the
	// level. Both labels are "" if the policy does not know containers.
	Init(options []string) (process, mount string, err error)
	// Reserve keeps the categories of the label from being assigned to others.
	Reserve(label string) error
	Release(label string)
	// Check returns an error for a label that the policy does not know.
	Check(label string) error
	FileLabel(path string) (string, error)
	SetFileLabel(path, label string) error
	// Relabel sets the label of everything below path, and of path last.
	Relabel(path, label string) error
}

// Labels assigns labels. It is safe for concurrent use.
type Labels struct{ system system }

// New returns Labels for a host on which SELinux is enabled.
func New() *Labels { return &Labels{system: machine{}} }

// Pod returns the labels of a new pod, which are reserved until Release. It returns
// ErrInvalidArgument for options that make no label of the host's policy.
func (l *Labels) Pod(o *cri.SELinuxOption) (process, mount string, err error) {
	if err := CheckOptions(o); err != nil {
		return "", "", err
	}
	process, mount, err = l.system.Init(initOptions(o))
	if err != nil {
		return "", "", fmt.Errorf("SELinux labels: %w", err)
	}
	if err := l.check(process); err != nil {
		l.Release(process, o)
		return "", "", err
	}
	return process, mount, nil
}

// Keep reserves the label of a pod that an earlier daemon process assigned.
func (l *Labels) Keep(process string) error {
	if process == "" {
		return nil
	}
	if err := l.system.Reserve(process); err != nil {
		return fmt.Errorf("keep SELinux label %q: %w", process, err)
	}
	return nil
}

// Release frees the categories of a pod. It does not free categories that the request named,
// because other pods may use them too.
func (l *Labels) Release(process string, o *cri.SELinuxOption) {
	if process != "" && o.GetLevel() == "" {
		l.system.Release(process)
	}
}

// Request is the input for the labels of a container.
type Request struct {
	PodProcess, PodMount string // labels of the pod
	Options              *cri.SELinuxOption
	// Unconfined is true for privileged containers, and for containers that share the
	// PID or IPC namespace of the host: a confined process could use neither.
	Unconfined bool
}

// Container returns the labels of a container: the labels of the pod, changed by the
// options of the container. Options must make a valid label even if the container is
// unconfined and they have no effect.
func (l *Labels) Container(r Request) (process, mount string, err error) {
	if err := CheckOptions(r.Options); err != nil {
		return "", "", err
	}
	process, mount = r.PodProcess, r.PodMount
	if HasOptions(r.Options) && r.PodProcess != "" {
		process, mount = override(r.PodProcess, r.PodMount, r.Options)
		if err := l.check(process); err != nil {
			return "", "", err
		}
	}
	switch {
	case r.Unconfined:
		return l.unconfined(r.PodProcess)
	case HasOptions(r.Options) && r.PodProcess == "":
		return "", "", fmt.Errorf("selinux_options: the policy of this host has no label for containers, so there is no label to change: %w", errdefs.ErrFailedPrecondition)
	}
	return process, mount, nil
}

// unconfinedType is the type that the usual policies have for processes of containers
// that are not confined.
const unconfinedType = "spc_t"

// unconfined returns the labels of an unconfined container. The process label is "" if
// the policy does not have unconfinedType: then the policy alone selects the domain of
// the container, from the domain of the OCI runtime. Confined processes cannot access
// files with the mount label.
func (l *Labels) unconfined(podProcess string) (process, mount string, err error) {
	if _, mount, err = l.system.Init([]string{"disable"}); err != nil {
		return "", "", fmt.Errorf("SELinux labels: %w", err)
	}
	if podProcess == "" {
		return "", mount, nil
	}
	process, _ = override(podProcess, mount, &cri.SELinuxOption{Type: unconfinedType, Level: "s0"})
	if l.check(process) != nil {
		process = ""
	}
	return process, mount, nil
}

func (l *Labels) check(label string) error {
	if label == "" {
		return nil
	}
	err := l.system.Check(label)
	if errors.Is(err, fs.ErrPermission) {
		// The policy does not let the daemon ask the kernel. The kernel checks the label when the container starts.
		return nil
	}
	if err != nil {
		return fmt.Errorf("selinux_options: the policy of this host does not know the label %q: %w: %w", label, err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// File sets the label of one file.
func (l *Labels) File(path, label string) error {
	if label == "" {
		return nil
	}
	if err := l.system.SetFileLabel(path, label); err != nil && !errors.Is(err, unix.ENOTSUP) {
		return fmt.Errorf("label %s: %w", path, err)
	}
	return nil
}

// Relabel sets the label of a volume and of everything in it. The top directory gets its label
// last, so if it has the label, the volume is complete and Relabel does nothing. File systems
// without labels are skipped. Relabel may take long, so the caller must not hold a lock that
// others need.
func (l *Labels) Relabel(path, label string) error {
	if label == "" {
		return nil
	}
	if has, err := l.system.FileLabel(path); err == nil && has == label {
		return nil
	}
	if err := l.system.Relabel(path, label); err != nil && !errors.Is(err, unix.ENOTSUP) {
		return fmt.Errorf("relabel %s: %w", path, err)
	}
	return nil
}

// HasOptions reports whether any option is set.
func HasOptions(o *cri.SELinuxOption) bool {
	return o.GetUser()+o.GetRole()+o.GetType()+o.GetLevel() != ""
}

// CheckOptions returns an error if options have invalid characters. It does not look at the
// host.
func CheckOptions(o *cri.SELinuxOption) error {
	for _, f := range []struct{ name, value, chars string }{
		{"user", o.GetUser(), "_-."}, {"role", o.GetRole(), "_-."}, {"type", o.GetType(), "_-."}, {"level", o.GetLevel(), "_-.:,"},
	} {
		if i := strings.IndexFunc(f.value, func(r rune) bool { return !alphanumeric(r) && !strings.ContainsRune(f.chars, r) }); i >= 0 {
			return fmt.Errorf("selinux_options.%s %q may have only letters, digits and %q: %w", f.name, f.value, f.chars, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

func alphanumeric(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

func initOptions(o *cri.SELinuxOption) []string {
	var options []string
	for _, f := range []struct{ name, value string }{
		{"user", o.GetUser()}, {"role", o.GetRole()}, {"type", o.GetType()}, {"level", o.GetLevel()},
	} {
		if f.value != "" {
			options = append(options, f.name+":"+f.value)
		}
	}
	return options
}

// override changes parts of labels of the form user:role:type:level. The label of files gets
// only the user and the level, because files and processes have different roles and
// types.
func override(process, mount string, o *cri.SELinuxOption) (newProcess, newMount string) {
	p, m := strings.SplitN(process, ":", 4), strings.SplitN(mount, ":", 4)
	set := func(parts []string, i int, value string) {
		if value != "" && i < len(parts) {
			parts[i] = value
		}
	}
	set(p, 0, o.GetUser())
	set(p, 1, o.GetRole())
	set(p, 2, o.GetType())
	set(p, 3, o.GetLevel())
	set(m, 0, o.GetUser())
	set(m, 3, o.GetLevel())
	return strings.Join(p, ":"), strings.Join(m, ":")
}

// machine is the host's kernel with its loaded policy.
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

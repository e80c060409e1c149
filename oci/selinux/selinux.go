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

// system is what is asked of the machine and its policy.
type system interface {
	// Init returns labels for a container, with categories of their own unless
	// options say otherwise; both are "" where the policy knows no containers.
	Init(options []string) (process, mount string, err error)
	// Reserve keeps the label's categories from being given to others.
	Reserve(label string) error
	Release(label string)
	// Check fails for a label that the policy does not know.
	Check(label string) error
	FileLabel(path string) (string, error)
	SetFileLabel(path, label string) error
	// Relabel labels all below path, and path last.
	Relabel(path, label string) error
}

// Labels gives labels out. It is safe for concurrent use.
type Labels struct{ system system }

// New returns labels for a machine on which SELinux is enabled.
func New() *Labels { return &Labels{system: machine{}} }

// Pod returns the labels of a new pod, until Release. Errors: ErrInvalidArgument
// for options that make no label of this machine's policy.
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

// Keep takes over the label of a pod that an earlier process gave out.
func (l *Labels) Keep(process string) error {
	if process == "" {
		return nil
	}
	if err := l.system.Reserve(process); err != nil {
		return fmt.Errorf("keep SELinux label %q: %w", process, err)
	}
	return nil
}

// Release gives a pod's categories back. Those that the request named may be
// others' too, and are nobody's to give back.
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
	if Asked(r.Options) && r.PodProcess != "" {
		process, mount = override(r.PodProcess, r.PodMount, r.Options)
		if err := l.check(process); err != nil {
			return "", "", err
		}
	}
	switch {
	case r.Unconfined:
		return l.unconfined(r.PodProcess)
	case Asked(r.Options) && r.PodProcess == "":
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

// File labels one file.
func (l *Labels) File(path, label string) error {
	if label == "" {
		return nil
	}
	if err := l.system.SetFileLabel(path, label); err != nil && !errors.Is(err, unix.ENOTSUP) {
		return fmt.Errorf("label %s: %w", path, err)
	}
	return nil
}

// Relabel labels a volume with all that is in it. As its top comes last, one
// whose top has the label has it all, and is left alone, however large it is. A
// file system without labels needs none. It may take long: no lock that others
// need may be held.
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

// Asked says whether options ask for anything.
func Asked(o *cri.SELinuxOption) bool {
	return o.GetUser()+o.GetRole()+o.GetType()+o.GetLevel() != ""
}

// CheckOptions says what is wrong with the form of options, if anything. It
// needs no machine.
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

// override changes parts of labels, which have the form user:role:type:level.
// Files take over the user and the level alone: their role and type are not
// those of processes.
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

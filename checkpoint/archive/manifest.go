package archive

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/containerd/errdefs"
)

// Manifest describes a pod checkpoint. Manifest is the content of ManifestFile. The daemon writes ManifestFile last,
// so a directory without ManifestFile is not a checkpoint.
type Manifest struct {
	Origin
	Pod        Pod                 `json:"pod"`
	Containers []ManifestContainer `json:"containers"`
	// Parts are the files with the state that all containers of the pod share.
	Parts []Part `json:"parts,omitempty"`
	// MAC is the message authentication code of the manifest without MAC, in hexadecimal.
	MAC string `json:"mac"`
}

// Values of Pod.Network and Pod.IPC.
const (
	NamespaceOfPod  = "pod"
	NamespaceOfNode = "node"
)

// Pod describes the pod sandbox.
type Pod struct {
	PodName
	Hostname string `json:"hostname"`
	// Network and IPC are NamespaceOfPod or NamespaceOfNode.
	Network string   `json:"network"`
	IPC     string   `json:"ipc"`
	SELinux *SELinux `json:"selinux,omitempty"`
	// Config is the PodSandboxConfig of the pod as protobuf JSON.
	Config json.RawMessage `json:"config,omitempty"`
}

// SELinux has the labels of the processes and of the files of a pod.
type SELinux struct {
	ProcessLabel string `json:"processLabel"`
	MountLabel   string `json:"mountLabel"`
}

// ManifestContainer is a container of a pod checkpoint.
type ManifestContainer struct {
	Name     string `json:"name"`
	Attempt  uint32 `json:"attempt"`
	ID       string `json:"id"`
	ImageRef string `json:"imageRef"`
	ImageID  string `json:"imageID"`
	// Config is the ContainerConfig of the container as protobuf JSON. Earlier daemons did not write it.
	Config json.RawMessage `json:"config,omitempty"`
	File
}

// Part is a file with state that all containers of the pod share.
type Part struct {
	Name string `json:"name"`
	File
}

// File is a file of a pod checkpoint.
type File struct {
	Path   string `json:"file"`   // relative to the directory of the checkpoint
	Size   int64  `json:"size"`   // bytes
	SHA256 string `json:"sha256"` // hexadecimal
}

// ContainerPath returns the path of the archive of a container. index counts from 0.
func ContainerPath(index int, name string) string {
	return path.Join(ContainersDir, fmt.Sprintf("%02d-%s.tar", index+1, name))
}

// ParseManifest parses the content of ManifestFile and checks all its rules. Errors: ErrInvalidArgument for
// content that breaks a rule, and ErrFailedPrecondition for another version of the format.
func ParseManifest(b []byte) (*Manifest, error) {
	var m Manifest
	err := decode(b, &m)
	if err == nil {
		err = m.Check()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ManifestFile, err)
	}
	return &m, nil
}

// Check returns an ErrInvalidArgument if the manifest breaks a rule of the format, and an ErrFailedPrecondition for
// another version of the format.
func (m *Manifest) Check() error {
	if err := m.Origin.check(); err != nil {
		return err
	}
	if n := len(m.Containers); n == 0 || n > MaxContainers {
		return fmt.Errorf("containers must have 1 to %d entries, not %d: %w", MaxContainers, n, errdefs.ErrInvalidArgument)
	}
	paths, names := make(map[string]bool), make(map[string]bool)
	for i, c := range m.Containers {
		if err := c.check(i); err != nil {
			return fmt.Errorf("containers[%d]: %w", i, err)
		}
		if names[c.Name] {
			return fmt.Errorf("containers[%d].name %q occurs twice: %w", i, c.Name, errdefs.ErrInvalidArgument)
		}
		names[c.Name], paths[c.Path] = true, true
	}
	for i, p := range m.Parts {
		if p.Name != PartShm || p.Path != PodShmFile || paths[p.Path] {
			return fmt.Errorf("parts[%d]: part %q with the file %q is unknown, or occurs twice: %w", i, p.Name, p.Path, errdefs.ErrInvalidArgument)
		}
		paths[p.Path] = true
		if err := p.File.check(); err != nil {
			return fmt.Errorf("parts[%d]: %w", i, err)
		}
	}
	return nil
}

// Sign sets MAC.
func (m *Manifest) Sign(key Key) error {
	message, err := m.message()
	if err != nil {
		return err
	}
	m.MAC = key.code(kindManifest, message)
	return nil
}

// Verify returns ErrFailedPrecondition if a daemon with another key has written the manifest, or if the manifest was
// changed.
func (m *Manifest) Verify(key Key) error {
	message, err := m.message()
	if err != nil {
		return err
	}
	if err := key.check(kindManifest, message, m.MAC); err != nil {
		return fmt.Errorf("%s: %w", ManifestFile, err)
	}
	return nil
}

// message returns the bytes that MAC authenticates: the manifest without MAC as JSON.
func (m *Manifest) message() ([]byte, error) {
	unsigned := *m
	unsigned.MAC = ""
	return json.Marshal(unsigned)
}

// check returns an error unless the path is the ContainerPath of the container, which is below the directory.
func (c *ManifestContainer) check(index int) error {
	if c.Name == "" || strings.ContainsAny(c.Name, "/\x00") {
		return fmt.Errorf("name %q must not be empty, and must not contain \"/\": %w", c.Name, errdefs.ErrInvalidArgument)
	}
	if want := ContainerPath(index, c.Name); c.Path != want {
		return fmt.Errorf("file must be %q, not %q: %w", want, c.Path, errdefs.ErrInvalidArgument)
	}
	return c.File.check()
}

func (f *File) check() error {
	if f.Size < 0 {
		return fmt.Errorf("size %d must not be negative: %w", f.Size, errdefs.ErrInvalidArgument)
	}
	if b, err := hex.DecodeString(f.SHA256); err != nil || len(b) != 32 {
		return fmt.Errorf("sha256 %q is not a digest: %w", f.SHA256, errdefs.ErrInvalidArgument)
	}
	return nil
}

// ReadManifest reads the manifest of the pod checkpoint in dir. Errors: ErrNotFound if dir has no manifest, and the
// errors of ParseManifest.
func ReadManifest(dir *os.Root) (*Manifest, error) {
	f, err := openRegular(dir, ManifestFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", ManifestFile, errors.Join(err, errdefs.ErrNotFound))
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := readLimited(f, MaxJSON)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ManifestFile, err)
	}
	return ParseManifest(b)
}

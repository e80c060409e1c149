package podspec

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	"github.com/criserver/criserver/internal/rootpath"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	maxMetadata = 4096 // bytes of a name, a namespace or a uid
	maxHostname = 64   // the kernel's __NEW_UTS_LEN
)

// Name identifies a pod sandbox (CRI, PodSandboxMetadata): no two pod sandboxes have the same Name.
type Name struct {
	Namespace, Name, UID string
	Attempt              uint32
}

// NameOf returns the name in the metadata of a request.
func NameOf(c *cri.PodSandboxConfig) Name {
	m := c.GetMetadata()
	return Name{Namespace: m.GetNamespace(), Name: m.GetName(), UID: m.GetUid(), Attempt: m.GetAttempt()}
}

// String returns the form namespace/name/uid/attempt. Different names have different strings, because parts with a
// slash or a quotation mark are quoted.
func (n Name) String() string {
	quote := func(s string) string {
		if strings.ContainsAny(s, `/"`) {
			return strconv.Quote(s)
		}
		return s
	}
	return fmt.Sprintf("%s/%s/%s/%d", quote(n.Namespace), quote(n.Name), quote(n.UID), n.Attempt)
}

// metadata requires a name and a namespace. Kubernetes sends DNS names, but other clients send blanks, slashes and
// more, so every printable character is allowed. The values never become part of a path or of a command line; see
// network.Pod for CNI plugins.
func (p *parser) metadata() error {
	p.spec.Name = NameOf(p.config)
	if p.config.Metadata == nil {
		return invalid("metadata", "must be set")
	}
	for _, f := range []struct {
		name, value string
		required    bool
	}{
		{"name", p.spec.Name.Name, true}, {"namespace", p.spec.Name.Namespace, true}, {"uid", p.spec.Name.UID, false},
	} {
		field := "metadata." + f.name
		switch {
		case f.value == "" && f.required:
			return invalid(field, "must not be empty")
		case len(f.value) > maxMetadata:
			return invalid(field, "has %d bytes, more than %d", len(f.value), maxMetadata)
		case strings.ContainsFunc(f.value, unicode.IsControl):
			return invalid(field, "%q must not contain control characters", f.value)
		}
	}
	return nil
}

// hostname allows the names that the kernel allows, without the characters that end a name in /etc/hosts. The kubelet
// sends a qualified name for setHostnameAsFQDN, and a name with a trailing dot if there is no cluster domain.
func (p *parser) hostname() error {
	name := p.config.Hostname
	p.spec.Hostname = name
	if len(name) > maxHostname {
		return invalid("hostname", "has %d bytes, more than %d", len(name), maxHostname)
	}
	if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) || r == '#' }) {
		return invalid("hostname", "%q must not contain blanks, control characters or '#'", name)
	}
	return nil
}

func (p *parser) logDirectory() error {
	const field = "log_directory"
	dir := p.config.LogDirectory
	p.spec.LogDirectory = dir
	switch {
	case dir == "":
		return nil
	case !filepath.IsAbs(dir):
		return invalid(field, "%q must be absolute", dir)
	case strings.ContainsRune(dir, 0):
		return invalid(field, "must not contain NUL")
	case rootpath.TooLong(dir):
		return invalid(field, rootpath.LengthRule)
	case hasDotDot(dir):
		return invalid(field, `%q must not contain ".."`, dir)
	}
	return nil
}

// hasDotDot reports whether ".." is an element of a path.
func hasDotDot(path string) bool {
	for part := range strings.SplitSeq(path, "/") {
		if part == ".." {
			return true
		}
	}
	return false
}

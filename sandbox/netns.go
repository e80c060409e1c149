package sandbox

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/sirupsen/logrus"
)

// netnsName returns the path of the name of a pod's network namespace. The id makes the name unique, also if several
// daemons use the directory.
func netnsName(dir, id string) string { return filepath.Join(dir, "criserver-"+id) }

// NetNS returns the path of the network namespace for other programs: its name, or its pin if another program has
// deleted or replaced the name. It returns "" for a pod with the network of the host. The daemon itself uses the pin,
// which no other program changes.
func (p *Pod) NetNS() string { return netnsPath(p.NetNSName, p.Namespaces.Net) }

func netnsPath(name, pin string) string {
	if name != "" && pin != "" && namespace.IsName(name, pin) {
		return name
	}
	return pin
}

// prepareNames prepares the directory of the names.
func (m *Manager) prepareNames() error {
	if m.cfg.NetNSDir == "" {
		return nil
	}
	return namespace.PrepareNames(m.cfg.NetNSDir)
}

// newName returns the name of a network namespace, or "" if network namespaces have no names.
func (m *Manager) newName(id string) string {
	if m.cfg.NetNSDir == "" {
		return ""
	}
	return netnsName(m.cfg.NetNSDir, id)
}

// removeName removes the name of a pod's network namespace. The caller unpins the namespace afterwards: the pin shows
// whether the name belongs to the pod.
func (m *Manager) removeName(id, name string) error {
	if name == "" {
		return nil
	}
	return namespace.Unname(name, m.dirs.netns(id))
}

// restoreName creates the name of a ready pod again if another program has deleted it while no daemon was running, or
// before. Agents of CNI plugins may need the name.
func (m *Manager) restoreName(ctx context.Context, e *entry) {
	name, pin := e.rec.NetNSName, m.dirs.netns(e.rec.ID)
	if name == "" || !namespace.Pinned(pin) || namespace.IsName(name, pin) {
		return
	}
	log := logrus.WithContext(ctx).WithFields(logrus.Fields{"pod": e.rec.ID, "path": name})
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		log.Warn("another program uses the name of the pod's network namespace; the namespace has no name")
		return
	}
	if err := namespace.Name(pin, name); err != nil {
		log.WithError(err).Warn("cannot restore the name of the pod's network namespace")
		return
	}
	log.Info("name of the pod's network namespace restored")
}

package sandbox

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/sirupsen/logrus"
)

// watchPause notices when the pause of a ready pod ends, as with it every
// process of the pod does.
func (m *Manager) watchPause(r *record) {
	if r.Pause == nil {
		return
	}
	id := r.ID
	err := m.watcher.Watch(*r.Pause, func(pidfd *os.File) {
		_ = namespace.Reap(pidfd)
		m.lose(id, "its pause process has ended")
	})
	if errors.Is(err, proc.ErrGone) {
		m.lose(id, "its pause process has ended")
	} else if err != nil {
		logrus.WithError(err).WithField("pod", id).Error("the pause of the pod sandbox cannot be watched")
	}
}

// Lose makes a ready pod not ready, for a reason in words for people.
func (m *Manager) Lose(id, why string) { m.lose(id, why) }

// lose makes a ready pod not ready.
func (m *Manager) lose(id, what string) {
	if e := m.view.Load().entries[id]; e == nil || !e.rec.ready() {
		return // it is being stopped, and holds its lock for that
	}
	ctx, cancel := context.WithTimeout(context.Background(), loseTimeout)
	defer cancel()
	unlock, err := m.ops.Lock(ctx, id)
	if err != nil {
		return // whoever holds it is ending the pod
	}
	defer unlock()
	e := m.view.Load().entries[id]
	if e == nil || !e.rec.ready() {
		return
	}
	next := e.copy()
	next.rec.Lost = what
	m.save(ctx, next)
	logrus.WithFields(logrus.Fields{"pod": id, "error": what}).Warn("pod sandbox is no longer ready")
}

const loseTimeout = time.Minute

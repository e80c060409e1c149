package container

import (
	"fmt"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
)

// BenchmarkLife measures the phases of a container from the creation to the removal.
func BenchmarkLife(b *testing.B) {
	logrus.SetLevel(logrus.ErrorLevel)
	testBed := newTestBed(b)
	m, _ := testBed.manager()
	ctx := b.Context()
	var create, start, exec, stop, remove time.Duration
	lap := func(d *time.Duration, fn func() error) {
		start := time.Now()
		if err := fn(); err != nil {
			b.Fatal(err)
		}
		*d += time.Since(start)
	}
	for i := range b.N {
		var id string
		lap(&create, func() (err error) {
			id, err = m.Create(ctx, "pod", shell(fmt.Sprint("c", i), "sleep 1000"), nil)
			return err
		})
		lap(&start, func() error { return m.Start(ctx, id) })
		lap(&exec, func() error { _, err := m.ExecSync(ctx, id, []string{"true"}, 0); return err })
		lap(&stop, func() error { return m.Stop(ctx, id, 0) })
		lap(&remove, func() error { return m.Remove(ctx, id) })
	}
	for name, d := range map[string]time.Duration{"create": create, "start": start, "exec": exec, "stop": stop, "remove": remove} {
		b.ReportMetric(float64(d.Microseconds())/float64(b.N)/1000, "ms/"+name)
	}
}

func BenchmarkList(b *testing.B) {
	m := &Manager{containers: make(map[string]*container)}
	for i := range 1000 {
		c := &container{id: fmt.Sprint(i)}
		c.snap.Store(&Snapshot{ID: c.id})
		m.containers[c.id] = c
	}
	b.ReportAllocs()
	for b.Loop() {
		if len(m.List()) != 1000 {
			b.Fatal("containers are missing")
		}
	}
}

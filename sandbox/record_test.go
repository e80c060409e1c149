package sandbox

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
)

func TestRecordFile(t *testing.T) {
	m := unitManager(t, nil)
	m.boot = "boot"
	b := &build{m: m, settings: m.settings.Load(), spec: mustParse(t, m, hostPod("a")), rec: &record{ID: strings.Repeat("12", 32), Handler: "runc"}}
	if err := m.prepare(); err != nil {
		t.Fatal(err)
	}
	if err := b.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, config, err := m.dirs.read(b.rec.ID)
	if err != nil || !proto.Equal(config, b.spec.Config) {
		t.Fatalf("got config %v, %v", config, err)
	}
	if a, b := mustJSON(t, got), mustJSON(t, b.rec); a != b {
		t.Errorf("read %s, wrote %s", a, b)
	}
	b.rec.Version = recordVersion + 1
	if err := m.dirs.write(b.rec); err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.dirs.read(b.rec.ID); err == nil {
		t.Error("record of a later version: got no error")
	}
}

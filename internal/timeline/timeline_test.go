package timeline

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/criserver/criserver/internal/steps"
)

var update = flag.Bool("update", false, "write the golden files")

// ms returns a time in milliseconds.
func ms(n float64) time.Duration { return time.Duration(n * float64(time.Millisecond)) }

// example returns the timeline of a pod whose first container could not be created, and that was stopped later.
func example() steps.Timeline {
	begin := time.Date(2026, 11, 30, 12, 0, 0, 123e6, time.UTC)
	return steps.Timeline{
		Object: steps.Object{Pod: "3f2a00000000000000000000000000000000000000000000000000000000beef", Name: "default/web"},
		Begin:  begin,
		Steps: []steps.Entry{
			{Name: "pod.run", Parent: -1, Duration: ms(93.4)},
			{Name: "network.wait", Parent: 0, Start: ms(0.1), Duration: ms(20.3), Waits: true},
			{Name: "pod.record", Parent: 0, Start: ms(20.5), Duration: ms(0.4)},
			{Name: "pod.files", Parent: 0, Start: ms(21), Duration: ms(3.2)},
			{Name: "pod.namespaces", Parent: 0, Start: ms(21), Duration: ms(11.2)},
			{Name: "cni.add", Parent: 0, Start: ms(32.3), Duration: ms(60.1), Attrs: []steps.Attr{steps.Network("pods"), steps.Interface("eth0")}},
			{Name: "cni.plugin", Parent: 5, Start: ms(33), Duration: ms(40), Attrs: []steps.Attr{steps.Plugin("bridge"), steps.Command("ADD"), steps.BuiltIn()}},
			{Name: "cni.plugin", Parent: 5, Start: ms(73), Duration: ms(19), Attrs: []steps.Attr{steps.Plugin("bandwidth"), steps.Command("ADD")}},
			{Name: "image.pull", Parent: -1, Start: ms(120), Duration: ms(200), Attrs: []steps.Attr{steps.Image("registry.example/app:1")}},
			{Name: "image.layer", Parent: 8, Start: ms(130), Duration: ms(170), Attrs: []steps.Attr{steps.Layer("sha256:aaaabbbbccccddddeeeeffff0000111122223333444455556666777788889999")}},
			{Name: "pod.stop", Parent: -1, Start: time.Hour, Duration: ms(500), Running: true},
			{Name: "lock.wait", Parent: 10, Start: time.Hour + ms(1), Duration: ms(499), Running: true, Waits: true, Attrs: []steps.Attr{steps.Lock("3f2a00000000000000000000000000000000000000000000000000000000beef")}},
		},
		Containers: []steps.Timeline{
			{
				Object: steps.Object{Pod: "3f2a", Container: "c1", Name: "app"}, Begin: begin.Add(ms(330)), Removed: true, Dropped: 2,
				Steps: []steps.Entry{
					{Name: "container.create", Parent: -1, Duration: ms(80), Class: steps.ClassOther, Error: "runc create: exec: \"x\":\nnot found"},
					{Name: "rootfs.mount", Parent: 0, Start: ms(1), Duration: ms(4)},
					{Name: "runtime.create", Parent: 0, Start: ms(20), Duration: ms(60), Class: steps.ClassOther, Error: "runc create: exec: \"x\":\nnot found"},
				},
			},
			{
				Object: steps.Object{Pod: "3f2a", Container: "c2", Name: "sidecar"}, Begin: begin.Add(ms(100)),
				Steps: []steps.Entry{{Name: "container.create", Parent: -1, Duration: ms(10)}},
			},
		},
	}
}

// compare compares output with a golden file.
func compare(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the output differs from %s (write it with -update):\n%s", file, got)
	}
}

// useUTC makes the output independent of the time zone of the machine.
func useUTC(t *testing.T) {
	local := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = local })
}

func TestTable(t *testing.T) {
	useUTC(t)
	var b bytes.Buffer
	if err := WriteTable(&b, example()); err != nil {
		t.Fatal(err)
	}
	compare(t, "pod.txt", b.Bytes())
	b.Reset()
	if err := WriteTable(&b, example().Containers[0]); err != nil {
		t.Fatal(err)
	}
	compare(t, "container.txt", b.Bytes())
}

func TestSVG(t *testing.T) {
	useUTC(t)
	var b bytes.Buffer
	if err := WriteSVG(&b, example()); err != nil {
		t.Fatal(err)
	}
	compare(t, "pod.svg", b.Bytes())
}

func TestDocument(t *testing.T) {
	b, err := json.MarshalIndent(NewDocument(example()), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "pod.json", append(b, '\n'))
}

func TestEmptyTimeline(t *testing.T) {
	empty := steps.Timeline{Object: steps.Object{Pod: "p"}}
	var b bytes.Buffer
	if err := WriteTable(&b, empty); err != nil {
		t.Error(err)
	}
	if err := WriteSVG(&b, empty); err != nil {
		t.Error(err)
	}
	if d := NewDocument(empty); d.Steps == nil {
		t.Error("the document of an empty timeline has null for its steps")
	}
}

func TestTicks(t *testing.T) {
	for _, total := range []time.Duration{1, time.Microsecond, ms(0.7), ms(93.4), ms(99.9), ms(100), time.Second, time.Hour} {
		if n := total / tickStep(total); n > 10 || n < 1 {
			t.Errorf("%v has %d marks on its axis, want 1 to 10", total, n)
		}
	}
}

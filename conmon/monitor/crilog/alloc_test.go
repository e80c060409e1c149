package crilog

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/criserver/criserver/conmon/monitor/sys"
)

// TestRoutineWorkAllocatesNothing checks that the work of each read does not allocate, because the
// garbage collector is off.
func TestRoutineWorkAllocatesNothing(t *testing.T) {
	log := new(File)
	if err := log.Open(filepath.Join(t.TempDir(), "log"), 0, make(sys.Buffer, BufferSize)); err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var l Lines
	data := []byte(strings.Repeat("some line\n", 100) + "rest")
	l.Split(log, new(Prefix), testTime, data) // allocates the buffer for unfinished lines
	if n := testing.AllocsPerRun(100, func() {
		var p Prefix
		p.Fill(Stdout, testTime)
		l.Split(log, &p, testTime, data)
		log.Flush()
	}); n != 0 {
		t.Errorf("%v allocations per read", n)
	}
}

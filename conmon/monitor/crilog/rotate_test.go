package crilog

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/criserver/criserver/conmon/monitor/sys"
)

// newTestLog returns a log file in a new directory with a maximum size, and the path of the log.
func newTestLog(t *testing.T, maxSize int64) (*File, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "0.log")
	l := new(File)
	if err := l.Open(path, maxSize, make(sys.Buffer, BufferSize)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l, path
}

// writeLines writes the lines from first to last, one line in each write.
func writeLines(l *File, first, last int) {
	var p Prefix
	p.Fill(Stdout, testTime)
	for n := first; n <= last; n++ {
		p.writeEntry(l, tagFull, fmt.Appendf(nil, "line %04d", n), nil)
		l.Flush()
	}
}

// lineLen is the size of an entry of writeLines.
const lineLen = prefixLen + len("line 0000\n")

func readLog(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestLogIsRotated checks that a log keeps its maximum size, that the lines of the log and of
// the rotated log have no gap, and that the deleted bytes are reported and counted.
func TestLogIsRotated(t *testing.T) {
	const maxSize = 10 * int64(lineLen)
	l, path := newTestLog(t, maxSize)
	writeLines(l, 1, 10)
	if _, err := os.Stat(path + rotatedSuffix); err == nil {
		t.Error("the log was rotated before it was full")
	}
	writeLines(l, 11, 20)
	if l.lost != 0 || strings.Contains(readLog(t, path), "conmon") {
		t.Errorf("after the first rotation: got %d lost bytes, want none", l.lost)
	}
	writeLines(l, 21, 25)
	old, current := readLog(t, path+rotatedSuffix), readLog(t, path)
	if !strings.HasPrefix(old[prefixLen:], "line 0011\n") || !strings.HasSuffix(old, "line 0020\n") || int64(len(old)) > maxSize {
		t.Errorf("rotated log: got %q, want the lines 11 to 20", old)
	}
	notice, rest, _ := strings.Cut(current, "\n")
	if want := fmt.Sprintf("[conmon: %d bytes of an older log were deleted: the log has reached its maximum size]", maxSize); notice[prefixLen:] != want {
		t.Errorf("notice: got %q, want %q", notice, want)
	}
	if !strings.HasPrefix(rest[prefixLen:], "line 0021\n") || !strings.HasSuffix(rest, "line 0025\n") {
		t.Errorf("log after the notice: got %q, want the lines 21 to 25", rest)
	}
	if l.lost != maxSize {
		t.Errorf("lost bytes: got %d, want %d", l.lost, maxSize)
	}
	if l.size != int64(len(current)) {
		t.Errorf("size: got %d, want %d", l.size, len(current))
	}
}

// TestRotationBetweenRenameAndReopen checks that a log that was renamed to be reopened is not
// renamed a second time.
func TestRotationBetweenRenameAndReopen(t *testing.T) {
	l, path := newTestLog(t, 5*int64(lineLen))
	writeLines(l, 1, 5)
	if err := os.Rename(path, path+".20261130"); err != nil {
		t.Fatal(err)
	}
	writeLines(l, 6, 7)
	if got := readLog(t, path+".20261130"); strings.Count(got, "\n") != 5 {
		t.Errorf("renamed log: got %q, want the lines 1 to 5", got)
	}
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	writeLines(l, 8, 8)
	if got := readLog(t, path); strings.Count(got, "\n") != 3 || l.lost != 0 {
		t.Errorf("log: got %q and %d lost bytes, want the lines 6 to 8 and none", got, l.lost)
	}
	if _, err := os.Stat(path + rotatedSuffix); err == nil {
		t.Error("the new log was renamed")
	}
}

// TestFailedRotation checks that a log that cannot be rotated grows and loses nothing, and that
// a later attempt succeeds.
func TestFailedRotation(t *testing.T) {
	l, path := newTestLog(t, 16*int64(lineLen))
	if err := os.MkdirAll(filepath.Join(path+rotatedSuffix, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeLines(l, 1, 17)
	if got := readLog(t, path); strings.Count(got, "\n") != 17 || l.lost != 0 {
		t.Errorf("log: got %d lines and %d lost bytes, want 17 and none", strings.Count(got, "\n"), l.lost)
	}
	if err := os.RemoveAll(path + rotatedSuffix); err != nil {
		t.Fatal(err)
	}
	writeLines(l, 18, 20)
	all := readLog(t, path+rotatedSuffix) + readLog(t, path)
	if got := strings.Count(all, "line"); got != 20 || l.size > 4*int64(lineLen) {
		t.Errorf("after a later attempt: got %d lines, and %d bytes in the log, want 20 lines, most in the rotated log", got, l.size)
	}
}

// TestRotationWithoutLimit checks that a log without a maximum size is not rotated.
func TestRotationWithoutLimit(t *testing.T) {
	l, path := newTestLog(t, 0)
	writeLines(l, 1, 100)
	if got := strings.Count(readLog(t, path), "\n"); got != 100 {
		t.Errorf("log: got %d lines, want 100", got)
	}
}

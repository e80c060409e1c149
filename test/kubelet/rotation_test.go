package kubelet

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// testRotation checks that a growing log is rotated into files, that old files are
// compressed and the oldest removed, and that no line is lost.
func testRotation(t *testing.T, n *node) {
	filler := strings.Repeat("x", 100)
	c := sh("talk", "i=0; until [ -e /stop ]; do i=$((i+1)); echo $i "+filler+"; usleep 2000; done; echo end $i; exec sleep 100000")
	p := n.runPod(t, newPod("rotation", c))
	dir := n.kubelet.path("logs", "default_"+p.Name+"_"+string(p.UID), "talk")
	eventually(t, 60*time.Second, func() error {
		files, err := logFiles(dir)
		if err != nil {
			return err
		}
		if len(files) < 3 || !strings.HasSuffix(files[0], ".gz") {
			return fmt.Errorf("log files: got %v", files)
		}
		return nil
	})
	n.exec(t, container{"rotation", "talk"}, "touch /stop")
	eventually(t, 60*time.Second, func() error {
		files, err := logFiles(dir)
		if err != nil {
			return err
		}
		if len(files) > 3 {
			return fmt.Errorf("log files: got %v, want at most 3", files)
		}
		return consecutive(files)
	})
}

// logFiles returns the files of a container's log, the oldest first.
func logFiles(dir string) ([]string, error) {
	rotated, err := filepath.Glob(filepath.Join(dir, "0.log.*"))
	slices.Sort(rotated)
	return append(rotated, filepath.Join(dir, "0.log")), err
}

// consecutive returns an error unless the numbers of the lines are consecutive and
// the last line marks the end.
func consecutive(files []string) error {
	last, ended := 0, false
	for _, file := range files {
		text, err := readLog(file)
		if err != nil {
			return err
		}
		for line := range strings.Lines(text) {
			f := strings.Fields(line)
			if len(f) != 5 || f[1] != "stdout" || f[2] != "F" {
				return fmt.Errorf("%s: line %q", file, line)
			}
			if f[3] == "end" {
				ended = f[4] == strconv.Itoa(last)
				continue
			}
			number, err := strconv.Atoi(f[3])
			if err != nil || last != 0 && number != last+1 {
				return fmt.Errorf("%s: line %q after line %d", file, line, last)
			}
			last = number
		}
	}
	if !ended {
		return errors.New("the log has no last line yet")
	}
	return nil
}

func readLog(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(file, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			return "", err
		}
	}
	b, err := io.ReadAll(r)
	return string(b), err
}

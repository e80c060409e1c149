package harness

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// listStage is the stage in which a test binary prints the names of its tests. TestMain must call m.Run in it.
const listStage = "list"

// Listing reports whether this process only prints the names of the tests.
func Listing() bool { return Stage() == listStage }

// IsolatedTests starts a process with new mount, network and IPC namespaces for each test of this binary. Isolated runs
// all tests in one such process. At most processes of them run at the same time. The output of a test is written when
// the test ends. args are the arguments of the binary.
func IsolatedTests(processes int, args ...string) error {
	pattern := flag.Lookup("test.run").Value.String()
	// A pattern with a slash selects subtests, usually of one test.
	if processes <= 1 || strings.Contains(pattern, "/") {
		return Isolated(args...)
	}
	names, err := testNames(pattern, args)
	if err != nil {
		return err
	}
	next := make(chan string, len(names))
	for _, name := range names {
		next <- name
	}
	close(next)

	var (
		workers sync.WaitGroup
		mu      sync.Mutex // of the output and failed
		failed  []error
	)
	for range processes {
		workers.Go(func() {
			for name := range next {
				var output bytes.Buffer
				err := isolated(&output, &output, slices.Concat(args, []string{"-test.run=^" + regexp.QuoteMeta(name) + "$"})...)
				mu.Lock()
				_, writeErr := output.WriteTo(os.Stdout)
				if err != nil {
					err = fmt.Errorf("%s: %w", name, err)
				}
				failed = append(failed, err, writeErr)
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	return errors.Join(failed...)
}

// testNames returns the names of the tests that match a pattern, in the order in which they are run.
func testNames(pattern string, args []string) ([]string, error) {
	if pattern == "" {
		pattern = "."
	}
	cmd := exec.Command("/proc/self/exe", slices.Concat(args, []string{"-test.list=" + pattern})...)
	cmd.Env = append(os.Environ(), stageVariable+"="+listStage)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the tests: %w", err)
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		if name := strings.TrimSpace(line); strings.HasPrefix(name, "Test") {
			names = append(names, name)
		}
	}
	return names, nil
}

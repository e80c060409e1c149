package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/test/harness"
)

// processFile is the name of a file with the process ID and the start time of the program that runs
// the cluster, or of the init process of a machine.
const processFile = "process"

func writeProcess(path string, pid int) error {
	start, err := startTime(pid)
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(fmt.Sprintf("%d %s\n", pid, start)), 0o644)
}

// readProcess returns the process of a file, or 0 if it has ended.
func readProcess(path string) (pid int, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	var start string
	if _, err := fmt.Sscan(string(text), &pid, &start); err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	// Another process with the same ID has another start time.
	if now, err := startTime(pid); err != nil || now != start {
		return 0, nil
	}
	return pid, nil
}

// startTime returns the start time of a process in clock ticks after the boot of the host, see proc_pid_stat(5).
func startTime(pid int) (string, error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // after the name, which may have spaces
	if len(fields) < 20 || fields[0] == "Z" {
		return "", fmt.Errorf("process %d has ended", pid)
	}
	return fields[19], nil
}

// MachinePid returns the process ID on the host of the init process of a node, or of the machine "control", of the
// cluster in dir.
func MachinePid(dir, name string) (int, error) {
	path := filepath.Join(dir, "nodes", name, processFile)
	if name == "control" {
		path = filepath.Join(dir, name, processFile)
	}
	pid, err := readProcess(path)
	if err == nil && pid == 0 {
		err = fmt.Errorf("machine %s does not run", name)
	}
	return pid, err
}

// Remove stops the cluster with a name whose directory is dir, if it runs, and removes everything that it has created,
// also if the program that ran the cluster was killed.
func Remove(ctx context.Context, name, dir string) error {
	pid, err := readProcess(filepath.Join(dir, processFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove cluster: %w", err)
	}
	if pid != 0 {
		if err := unix.Kill(pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove cluster: stop process %d: %w", pid, err)
		}
		if err := waitForExit(ctx, filepath.Join(dir, processFile)); err != nil {
			return fmt.Errorf("remove cluster: %w", err)
		}
	}
	// The machines of a killed program end with it, because their standard inputs end.
	return errors.Join(removeCgroups(cgroupOf(name)), removeTop(), os.RemoveAll(dir))
}

// waitForExit waits until the process of a file has ended, or has removed the file.
func waitForExit(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, harness.Patience(60*time.Second))
	defer cancel()
	for {
		pid, err := readProcess(path)
		if errors.Is(err, os.ErrNotExist) || err == nil && pid == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d does not end: %w", pid, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

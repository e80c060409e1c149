package cluster

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/criserver/criserver/test/harness"
)

// systemdSlice is the slice of the scopes of clusters.
const systemdSlice = "system.slice"

// managedBySystemd reports whether systemd manages the cgroups of the host. Then a cluster has only cgroups that
// systemd has delegated.
func managedBySystemd() bool {
	info, err := os.Lstat("/run/systemd/system")
	return err == nil && info.IsDir() && harness.Unified()
}

func scopeName(cluster string) string { return cgroupTop + "-" + cluster + ".scope" }

// scope is a systemd scope with a delegated cgroup: systemd leaves everything below the cgroup to the cluster, and
// removes the scope when its last process ends.
type scope struct {
	holder *exec.Cmd
	in     io.Closer
}

// startScope starts the scope of a cluster. A process that holds the scope while the cluster has no other process is in
// the child cgroup holder, because only leaves of cgroup v2 have processes. The process ends with the program that
// called startScope.
func startScope(ctx context.Context, cluster string) (*scope, error) {
	const script = `mkdir "$0" && echo $$ >"$0/cgroup.procs" && echo started && exec cat >/dev/null`
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "systemd-run", "--scope", "--quiet", "--collect", "--slice="+systemdSlice,
		"--unit="+scopeName(cluster), "--property=Delegate=yes", "--property=TasksMax=infinity", "/bin/sh", "-c", script, filepath.Join(cgroupMount, cgroupOf(cluster), "holder"))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // the signals of a terminal are for the program only
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start scope %s: %w", scopeName(cluster), err)
	}
	s := &scope{holder: cmd, in: in}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		s.stop()
		return nil, fmt.Errorf("start scope %s: %w: %s", scopeName(cluster), err, errs.String())
	}
	return s, nil
}

// stop ends the process that holds the scope.
func (s *scope) stop() {
	_ = s.in.Close()
	_ = s.holder.Wait()
}

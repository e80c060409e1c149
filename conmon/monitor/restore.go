package monitor

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/monitor/criu"
	"github.com/criserver/criserver/conmon/monitor/runtime"
	"github.com/criserver/criserver/conmon/monitor/sys"
	"github.com/criserver/criserver/conmon/wire"
)

// A container from a checkpoint is restored by "RUNTIME restore", for which criu re-creates the
// processes. The pipes of the monitor replace the pipes that the streams had at the checkpoint. The
// first process becomes a child of the monitor when the runtime exits, as after create.

// spawnRestore runs the runtime's restore in a mount namespace: see criu.ExecRestore. The kernel kills the runtime if
// the monitor exits.
func (d *deferredStart) spawnRestore() (err error) {
	c := newCreation(d.m)
	spec := &d.m.spec
	_ = unix.Unlink(wire.PIDFile)
	env, err := criu.Interpose(spec)
	if err == nil {
		err = c.open()
	}
	if err == nil {
		args := runtime.Args(spec, "restore", "--detach", "--bundle", spec.Bundle, "--pid-file", spec.RunDir+"/"+wire.PIDFile,
			"--image-path", spec.RestoreImages, "--work-path", spec.RunDir)
		if c.console != nil {
			args = append(args, "--console-socket", runtime.ConsolePath(spec.RunDir))
		}
		args = append(append(args, spec.RestoreArgs...), spec.ID)
		d.proc, err = runtime.StartWith(&syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}, criu.RestoreCommand(args), env, c.childFDs)
	}
	if err != nil {
		sys.CloseFD(&d.m.stdin.fd)
		c.close()
		return err
	}
	// Only the runtime may hold its ends, so that their closing shows as a hang-up here.
	c.closeChildFDs()
	d.restore = c
	return nil
}

// completeRestore makes the restored process the container's first process. The output of the
// container is in the pipes since criu has resumed the processes, and is read only now: while the
// runtime runs, the pipes also carry its messages.
func (d *deferredStart) completeRestore(status unix.WaitStatus) error {
	m, c := d.m, d.restore
	d.restore = nil
	defer c.close()
	d.criu.close()
	err := errors.New("the container has ended")
	switch {
	case m.init.exited:
	case !status.Exited() || status.ExitStatus() != 0:
		c.readOutputs()
		err = errors.New("runtime restore: " + runtime.Failure(c.runtimeOutput.Text(), runtime.DescribeStatus(status), m.log.Buffer()))
	default:
		if err = c.takeOver(); err == nil {
			err = m.watchContainer()
		}
	}
	if err != nil {
		runtime.Delete(&m.spec)
	}
	return err
}

// abandonRestore ends a restore that runs. The runtime was killed.
func (d *deferredStart) abandonRestore() {
	d.m.poll.Remove(d.proc.PidFD)
	_, _ = d.proc.Wait()
	d.proc.Close()
	d.proc = runtime.None()
	d.criu.close()
	d.restore.close()
	d.restore = nil
	runtime.Delete(&d.m.spec)
}

package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/criserver/criserver/test/vm/wire"
)

// bootTime bounds a boot. It takes 20 s on an idle machine, and longer while other programs run, because the
// processor is emulated.
const bootTime = 5 * time.Minute

// speedUp are parameters of the kernel that make the emulation faster:
//   - mitigations=off turns off the measures against faults of real processors, which an emulator does not have.
//   - norandmaps places each program at the same addresses in every process. Without it the emulator translates ld.so,
//     libc and all position-independent programs again for each process, which takes most of the time of short
//     processes.
//   - tsc=reliable keeps the fast clock when a busy host makes it seem to be wrong.
//   - init_on_alloc=0 does not clear memory that is allocated, and rcu_expedited ends grace periods early, for which
//     the removal of namespaces and interfaces waits.
const speedUp = "mitigations=off norandmaps tsc=reliable init_on_alloc=0 rcupdate.rcu_expedited=1"

// Machine is a running guest.
type Machine struct {
	*Client
	Base
	dir  string
	cmd  *exec.Cmd
	gone chan error
}

// Options say how a guest is booted.
type Options struct {
	Work   string // image of the disk with the project, from MakeWork
	Dir    string // gets the socket and the console's output; it must exist
	Memory int    // in MiB; 3072 if 0
	Append string // added to the kernel's command line
	Alone  bool   // no other guest needs the processors: each processor of the guest gets a thread
	Detach bool   // the guest outlives this process
}

// Boot starts a guest and waits until its agent answers. Changes to the disks survive a
// reboot of the guest, and disappear when the machine is stopped.
func Boot(ctx context.Context, b Base, o Options) (*Machine, error) {
	m := &Machine{Base: b, dir: o.Dir, gone: make(chan error, 1)}
	_ = os.Remove(m.socket())
	console, err := os.Create(m.Console())
	if err != nil {
		return nil, err
	}
	defer console.Close()
	m.cmd = exec.Command(b.emulator(), b.arguments(o, m.socket())...)
	m.cmd.Stdout, m.cmd.Stderr = console, console
	// The temporary files of qemu have the changes of the disks.
	m.cmd.Env = append(os.Environ(), "TMPDIR="+o.Dir)
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if !o.Detach {
		m.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { m.gone <- m.cmd.Wait() }()
	ctx, cancel := context.WithTimeout(ctx, bootTime)
	defer cancel()
	if m.Client, err = Connect(ctx, m.socket()); err == nil {
		_, err = m.WaitBoot(ctx, "")
	}
	if err != nil {
		return nil, fmt.Errorf("boot guest %s: %w; the console's output is in %s", b.Name, errors.Join(err, m.Stop()), m.Console())
	}
	return m, nil
}

// Console returns the path of the file with the console's output.
func (m *Machine) Console() string { return filepath.Join(m.dir, "console.log") }

// socket returns the path of the socket that leads to the agent.
func (m *Machine) socket() string { return filepath.Join(m.dir, "agent.sock") }

// Pid returns the process ID of the emulator.
func (m *Machine) Pid() int { return m.cmd.Process.Pid }

// Stop ends the guest at once, like a power cut.
func (m *Machine) Stop() error {
	if m.Client != nil {
		m.Client.Close()
	}
	_ = m.cmd.Process.Kill()
	select {
	case <-m.gone:
		return nil
	case <-time.After(30 * time.Second):
		return fmt.Errorf("qemu (pid %d) does not end", m.Pid())
	}
}

// Reboot restarts the guest's system with systemctl and waits until the agent of the new boot answers.
func (m *Machine) Reboot(ctx context.Context) error {
	before, err := m.WaitBoot(ctx, "")
	if err != nil {
		return err
	}
	if _, err := m.Run(ctx, Command{Args: []string{"systemctl", "reboot", "--no-block"}}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*bootTime)
	defer cancel()
	if _, err := m.WaitBoot(ctx, before); err != nil {
		return fmt.Errorf("reboot guest %s: %w", m.Name, err)
	}
	return nil
}

func (b Base) emulator() string {
	if b.Arch == "arm64" {
		return "qemu-system-aarch64"
	}
	return "qemu-system-x86_64"
}

func (b Base) arguments(o Options, socket string) []string {
	memory := o.Memory
	if memory == 0 {
		memory = 3072
	}
	// The fewer vector instructions the processor has, the faster its emulation: this one hashes twice as fast as "max".
	console, machine, cpu := "ttyS0", "pc", "Westmere"
	if b.Arch == "arm64" {
		console, machine, cpu = "ttyAMA0", "virt", "max,pauth-impdef=on"
	}
	// With one thread for both processors of the guest, nothing waits for a processor that another guest holds up. It
	// also avoids a fault of qemu before 8.1: a thread can miss that another one has patched the code of the kernel,
	// which then panics ("Oops: int3").
	threads := "single"
	if o.Alone {
		threads = "multi"
	}
	// Writes go to temporary files, so that one disk serves any number of guests.
	drive := func(path string) string {
		return "file=" + path + ",format=raw,if=virtio,snapshot=on,cache=unsafe,discard=unmap"
	}
	return []string{
		"-M", machine, "-accel", "tcg,thread=" + threads, "-cpu", cpu, "-smp", "2", "-m", strconv.Itoa(memory),
		"-nographic", "-nodefaults", "-serial", "stdio", "-nic", "none",
		"-kernel", b.Kernel, "-initrd", b.Initrd,
		"-append", "root=/dev/vda rw console=" + console + " panic=-1 quiet " + speedUp + " " + b.Append + " " + o.Append,
		"-drive", drive(b.Disk), "-drive", drive(o.Work),
		"-device", "virtio-serial-pci", "-chardev", "socket,id=agent,path=" + socket + ",server=on,wait=off",
		"-device", "virtserialport,chardev=agent,name=" + wire.PortName,
		"-object", "rng-random,filename=/dev/urandom,id=rng", "-device", "virtio-rng-pci,rng=rng",
	}
}

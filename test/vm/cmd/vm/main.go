// Command vm builds and boots guests and runs commands in them, for the search for
// faults. The suites in guests are run by the tests of test/vm.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/criserver/criserver/test/vm/guest"
)

const usage = `usage, in the top directory of the project:
  vm build GUEST              make the guest's disk, if it is missing
  vm boot [-memory MIB] GUEST [FILE...]
                              boot the guest in the background, with bin/, the tracked files and FILEs in /work/criserver;
                              bin/ and FILEs for another architecture come from .cache/vm/ARCH/tree; a FILE may be a
                              directory, and bin/kubernetes and bin/upgrade are in the guest only as FILEs
  vm exec GUEST COMMAND...    run a command in the guest; only one exec or push can run at a time
  vm push GUEST FROM TO       copy a file into the guest
  vm stop GUEST               end the guest at once
GUEST is the name of a guest, for boot and later optionally with a suffix that names one of several: trixie.two`

var errUsage = errors.New(usage)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	code, err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(ctx context.Context, args []string) (int, error) {
	memory, args, err := parse(args)
	if err != nil {
		return 2, err
	}
	name, _, _ := strings.Cut(args[1], ".")
	release, ok := guest.Find(name)
	if !ok {
		return 2, fmt.Errorf("there is no guest %q", name)
	}
	cache := filepath.Join(".cache", "vm")
	dir, err := filepath.Abs(filepath.Join(cache, "run", args[1]))
	if err != nil {
		return 1, err
	}
	switch rest := args[2:]; {
	case args[0] == "build" && len(rest) == 0:
		_, err := guest.Build(ctx, cache, release)
		return 0, err
	case args[0] == "boot":
		return 0, boot(ctx, cache, dir, release, memory, rest)
	case args[0] == "exec" && len(rest) > 0:
		return execute(ctx, dir, rest)
	case args[0] == "push" && len(rest) == 2:
		return 0, push(ctx, dir, rest[0], rest[1])
	case args[0] == "stop" && len(rest) == 0:
		return 0, stop(dir)
	}
	return 2, errUsage
}

// parse returns the option -memory of boot, and the arguments without the option. There are at least two: the command
// and the guest.
func parse(args []string) (memory int, rest []string, err error) {
	if len(args) > 0 && args[0] == "boot" {
		flags := flag.NewFlagSet("boot", flag.ContinueOnError)
		flags.SetOutput(io.Discard)
		flags.IntVar(&memory, "memory", 0, "")
		if err := flags.Parse(args[1:]); err != nil {
			return 0, nil, fmt.Errorf("%w\n%w", err, errUsage)
		}
		args = append(args[:1], flags.Args()...)
	}
	if len(args) < 2 {
		return 0, nil, errUsage
	}
	return memory, args, nil
}

// boot boots a guest with memory in MiB, or the default memory if memory is 0.
func boot(ctx context.Context, cache, dir string, release guest.Release, memory int, extra []string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	base, err := guest.Build(ctx, cache, release)
	if err != nil {
		return err
	}
	work, agent := filepath.Join(dir, "work.ext4"), filepath.Join(dir, "agent")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", agent, "./agent")
	build.Dir, build.Env = filepath.Join("test", "vm"), append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+release.Arch)
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the agent: %w\n%s", err, out)
	}
	if err := guest.Programs(ctx, ".", release.Arch); err != nil {
		return err
	}
	if err := guest.MakeWork(ctx, guest.Work{Top: ".", Arch: release.Arch, Agent: agent, Disk: work, Extra: extra}); err != nil {
		return err
	}
	m, err := guest.Boot(ctx, base, guest.Options{Work: work, Dir: dir, Memory: memory, Detach: true, Alone: true})
	if err != nil {
		return err
	}
	fmt.Printf("guest %s runs as process %d; the console's output is in %s\n", filepath.Base(dir), m.Pid(), m.Console())
	return os.WriteFile(filepath.Join(dir, "pid"), []byte(strconv.Itoa(m.Pid())), 0o644)
}

// connect connects to the guest that has its files in dir. It locks dir until this process ends, and returns an error
// if another process has the lock. A second connection would hang, because the emulator serves one after the other.
func connect(ctx context.Context, dir string) (*guest.Client, error) {
	lock, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the guest %s does not run", filepath.Base(dir))
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	err = syscall.Flock(lock, syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("another command runs in the guest %s", filepath.Base(dir))
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return guest.Connect(ctx, filepath.Join(dir, "agent.sock"))
}

func execute(ctx context.Context, dir string, args []string) (int, error) {
	c, err := connect(ctx, dir)
	if err != nil {
		return 1, err
	}
	defer c.Close()
	return c.Run(ctx, guest.Command{Args: args, Stdout: os.Stdout, Stderr: os.Stderr})
}

func push(ctx context.Context, dir, from, to string) error {
	c, err := connect(ctx, dir)
	if err != nil {
		return err
	}
	defer c.Close()
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	return c.Push(ctx, from, to, info.Mode().Perm())
}

func stop(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(string(b))
	if err != nil {
		return err
	}
	return errors.Join(syscall.Kill(pid, syscall.SIGKILL), os.RemoveAll(dir))
}

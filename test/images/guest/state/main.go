// State has locks of files and timers of the kernel, which a checkpoint must contain. Without an argument, State takes
// the locks, starts the timers, and prints how often each timer has expired. With the argument "locks", State prints
// which locks another process has. With "alarm" and a number of seconds, State starts a timer that expires once.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "locks":
		err = printLocks()
	case len(os.Args) == 3 && os.Args[1] == "alarm":
		err = alarm(os.Args[2])
	default:
		err = run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "state:", err)
		os.Exit(1)
	}
}

// period is the period of each timer.
const period = 20 * time.Millisecond

func run() error {
	for _, l := range locks {
		if err := l.take(); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	timers := []struct {
		name    string
		start   func(count *atomic.Int64) error
		expired atomic.Int64
	}{{name: "timer_create", start: createTimer}, {name: "setitimer", start: setTimer}, {name: "timerfd", start: openTimer}}
	for i := range timers {
		if err := timers[i].start(&timers[i].expired); err != nil {
			return fmt.Errorf("%s: %w", timers[i].name, err)
		}
	}
	for {
		time.Sleep(5 * period)
		var line []byte
		for i := range timers {
			line = fmt.Append(line, timers[i].name, " ", timers[i].expired.Load(), " ")
		}
		os.Stdout.Write(append(line, '\n'))
	}
}

// alarm prints a line when a timer that expires once has been started, and each time when it expires.
func alarm(seconds string) error {
	n, err := strconv.Atoi(seconds)
	if err != nil {
		return err
	}
	received := make(chan os.Signal, 16)
	signal.Notify(received, syscall.SIGALRM)
	if err := startTimer(0, time.Duration(n)*time.Second); err != nil {
		return err
	}
	fmt.Println("started")
	for range received {
		fmt.Println("expired")
	}
	return nil
}

// lock is a lock of a file.
type lock struct {
	name string
	take func() error // fails with EAGAIN if another process has the lock
}

var locks = []lock{{"flock", takeFlock}, {"posix", takePOSIX}, {"ofd", takeOFD}}

// files are open as long as the process runs.
var files []*os.File

func open(path string) (fd uintptr, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return 0, err
	}
	files = append(files, f)
	return f.Fd(), nil
}

func takeFlock() error {
	fd, err := open("/tmp/flock")
	if err != nil {
		return err
	}
	return syscall.Flock(int(fd), syscall.LOCK_EX|syscall.LOCK_NB)
}

// setOFDLock is F_OFD_SETLK, which package syscall does not have.
const setOFDLock = 37

func takePOSIX() error { return takeRange("/tmp/posix", syscall.F_SETLK) }
func takeOFD() error   { return takeRange("/tmp/ofd", setOFDLock) }

// takeRange locks some bytes of a file.
func takeRange(path string, command int) error {
	fd, err := open(path)
	if err != nil {
		return err
	}
	return syscall.FcntlFlock(fd, command, &syscall.Flock_t{Type: syscall.F_WRLCK, Start: 10, Len: 20})
}

func printLocks() error {
	for _, l := range locks {
		switch err := l.take(); {
		case err == nil:
			fmt.Print(l.name, " free ")
		case errors.Is(err, syscall.EAGAIN):
			fmt.Print(l.name, " locked ")
		default:
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	fmt.Println()
	return nil
}

// countSignals counts the signals that the process receives.
func countSignals(s os.Signal, count *atomic.Int64) {
	received := make(chan os.Signal, 16)
	signal.Notify(received, s)
	go func() {
		for range received {
			count.Add(1)
		}
	}()
}

// itimerspec is struct itimerspec of the kernel.
type itimerspec struct{ interval, value syscall.Timespec }

func everyPeriod() *itimerspec {
	t := syscall.NsecToTimespec(int64(period))
	return &itimerspec{t, t}
}

const clockMonotonic = 1

// createTimer starts a timer of POSIX, which sends SIGUSR1.
func createTimer(count *atomic.Int64) error {
	countSignals(syscall.SIGUSR1, count)
	event := struct { // struct sigevent of the kernel
		value          uintptr
		signal, notify int32
		_              [64 - unsafe.Sizeof(uintptr(0)) - 8]byte
	}{signal: int32(syscall.SIGUSR1)}
	var id int32
	if _, _, e := syscall.Syscall(syscall.SYS_TIMER_CREATE, clockMonotonic, uintptr(unsafe.Pointer(&event)), uintptr(unsafe.Pointer(&id))); e != 0 {
		return e
	}
	if _, _, e := syscall.Syscall6(syscall.SYS_TIMER_SETTIME, uintptr(id), 0, uintptr(unsafe.Pointer(everyPeriod())), 0, 0, 0); e != 0 {
		return e
	}
	return nil
}

// setTimer starts the interval timer of the process, which sends SIGALRM.
func setTimer(count *atomic.Int64) error {
	countSignals(syscall.SIGALRM, count)
	return startTimer(period, period)
}

// startTimer calls setitimer.
func startTimer(interval, first time.Duration) error {
	value := [2]syscall.Timeval{syscall.NsecToTimeval(int64(interval)), syscall.NsecToTimeval(int64(first))}
	const realTime = 0 // ITIMER_REAL
	if _, _, e := syscall.Syscall(syscall.SYS_SETITIMER, realTime, uintptr(unsafe.Pointer(&value)), 0); e != 0 {
		return e
	}
	return nil
}

// openTimer starts a timer whose expirations can be read from a file descriptor.
func openTimer(count *atomic.Int64) error {
	fd, _, e := syscall.Syscall(syscall.SYS_TIMERFD_CREATE, clockMonotonic, syscall.O_CLOEXEC, 0)
	if e != 0 {
		return e
	}
	if _, _, e := syscall.Syscall6(syscall.SYS_TIMERFD_SETTIME, fd, 0, uintptr(unsafe.Pointer(everyPeriod())), 0, 0, 0); e != 0 {
		return e
	}
	go func() {
		b := make([]byte, 8)
		for {
			n, err := syscall.Read(int(fd), b)
			if errors.Is(err, syscall.EINTR) {
				continue
			}
			if n != len(b) {
				fmt.Fprintln(os.Stderr, "state: read timerfd:", n, err)
				os.Exit(1)
			}
			count.Add(int64(binary.NativeEndian.Uint64(b)))
		}
	}()
	return nil
}

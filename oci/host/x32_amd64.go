package host

import "golang.org/x/sys/unix"

// x32 reports whether the kernel has the x32 ABI, whose system call numbers have an additional
// bit.
func x32() bool {
	const bit = 1 << 30 // __X32_SYSCALL_BIT
	_, _, errno := unix.RawSyscall(bit|unix.SYS_GETPID, 0, 0, 0)
	return errno == 0
}

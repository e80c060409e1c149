// Package monitor implements the monitor process of one container. The daemon starts one
// monitor per container; the monitor outlives the daemon. Package wire defines what the daemon
// and the monitor exchange.
//
// The life of a monitor, in the order of the calls in monitor.run:
//
//  1. prepare makes the buffers, the log file and the control socket.
//  2. create makes the container's pipes or console socket and runs "RUNTIME create". It is left out
//     for a container from a checkpoint, which has no process before the start (deferredStart).
//  3. reportStarted sends the pid of the container's first process to the daemon. If the daemon
//     does not read this answer, the monitor deletes the container and exits.
//  4. The main loop handles one batch of epoll events after the other: output of the container
//     (stream), input (stdin), connections to the control socket (control, client), OOM kills
//     (oom.Watch), and the end of child processes (initProcess, deferredStart, guest). After each batch, runTimers
//     does what is due: it disconnects slow clients, kills a start that takes too long, writes
//     unfinished lines that are overdue, and gives unused buffers back to the kernel.
//  5. When the first process has exited, recordExit drains the streams into the log, writes the
//     exit record and closes the control socket. If other processes still hold the streams open,
//     the loop continues for at most drainTimeout. Then the monitor exits.
//
// Package crilog writes the log, package runtime runs the OCI runtime, package oom watches the OOM killer, package
// criu has the programs that run in a restore, and package sys has the system calls.
//
// To debug a container that hangs, find out why the monitor waits. The monitor can wait for a client
// that does not read its output (monitor.slowClient), for a process that does not read its
// stdin (stdin.pending), or for the first process to exit. It never waits for the daemon, and a
// log that cannot be written never stops the container (crilog.File).
//
// A node has as many monitors as containers, so a monitor must need little memory. There is one
// goroutine around one epoll set and no lock. Large buffers are in memory only while they are
// used. Routine work allocates nothing, because the garbage collector is off. The package and
// the packages below it import only packages with small tables and little init work. They must not import net,
// os/exec, encoding/json, fmt or log. They must not open an os.File before the container runs,
// because the first os.File starts the poller of the Go runtime.
//
// Frequent reads and writes are raw system calls. The Go scheduler moves its processor away
// from an ordinary system call that takes more than 20 µs, and wakes a thread to use the
// processor. A process with one goroutine gains nothing from that.
package monitor

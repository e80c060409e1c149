// Package monitor is the monitor of one container: the process that holds its
// streams and its log, and that sees it end. It outlives the daemon that
// started it. What the two say to each other is package wire.
//
// A node has as many monitors as containers, so this package is written for
// memory first: one goroutine around one epoll set, no locks, large buffers only
// while they are in use, no garbage made by routine work (the collector is off),
// and only packages whose tables and init work are small. It must not import
// net, os/exec, encoding/json, fmt or log, nor open an os.File before the
// container runs, which would start the Go runtime's own poller.
//
// Hot reads and writes are raw system calls. An ordinary one of more than 20 µs
// makes the Go scheduler hand its processor over and wake a thread for it; there
// is nobody here to hand it to.
package monitor

// Package machine runs processes that see a machine of their own: a process namespace with an init process, and mount,
// network, UTS and IPC namespaces. When the init process ends, the kernel kills all processes of the machine,
// as a power cut does. The init process ends when the program that created the machine ends, however that
// happens.
package machine

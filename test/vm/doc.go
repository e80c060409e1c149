// Package vm runs the suites of the project in virtual machines that have what
// the machine that builds them may lack: systemd, cgroup v2, AppArmor, SELinux,
// another architecture, another kernel.
//
// Its tests build the guests (package guest), compile the suites, boot each
// guest, run the suites of its plan in it, and extract their output and JUnit
// reports into the directory report. The guests are emulated, about ten times
// slower than the machine itself, and have no network.
package vm

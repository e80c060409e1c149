// Package critest runs the CRI validation suite of sigs.k8s.io/cri-tools against the daemon that stands in bin/.
//
// A run of one variant is three processes of the same test binary. The first looks at the machine from outside and starts the second in a mount,
// network and IPC namespace of its own, so that bridges, firewall rules and mounts of the machine are neither touched nor in the way.
// The second serves the test images on loopback, starts the daemon on throwaway directories, starts the third, which is the suite, and
// when that has ended counts what passed and looks for what was left behind: processes, mounts, links, rules, cgroups, files.
//
// The suite is run in several variants: other flags of the suite, another runtime under the daemon. What is not expected to pass stands in
// skips.txt with its reason; a spec that is skipped and does not stand there is a failure. Nothing is tried twice.
package critest

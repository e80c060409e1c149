// Package runtime calls OCI runtimes, such as runc and crun: it runs their commands, passes input and
// output, and reaps the processes that the commands leave behind. The package does not build OCI
// specs, and does not know the life cycles of pods and containers.
package runtime

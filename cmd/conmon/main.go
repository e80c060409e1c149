// Command conmon is the monitor of one container, and under the name pause the
// process that holds a pod's namespaces. The daemon starts both.
package main

import (
	"os"

	"github.com/criserver/criserver/conmon/monitor"
)

// version is set by the linker.
var version = "devel"

func main() { os.Exit(monitor.Main(os.Args, version)) }

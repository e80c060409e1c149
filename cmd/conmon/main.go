// Command conmon is the monitor of one container. Under the name pause it is the process that
// holds the namespaces of a pod. The daemon starts both.
package main

import (
	"os"

	"github.com/criserver/criserver/conmon/monitor"
)

// version is set by the linker.
var version = "devel"

func main() { os.Exit(monitor.Main(os.Args, version)) }

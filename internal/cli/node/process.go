package node

import (
	"os"
	"runtime/debug"
)

// umask is the umask of the daemon. It replaces the umask that the daemon was started with. Users of
// containers must be able to read files that the daemon creates for containers, such as hosts
// files and working directories. Monitors, OCI runtimes, commands of exec, CNI plugins and
// hooks inherit the umask.
const umask = 0o022

// limitMemory makes the garbage collector run when the heap has grown by 50 percent instead
// of Go's default of 100 percent, because the daemon shares its node with the containers.
// The environment variable GOGC takes precedence.
func limitMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

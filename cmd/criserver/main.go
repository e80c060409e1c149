// Command criserver is the daemon, which serves the Kubernetes Container Runtime Interface
// (CRI) on a unix socket, and the commands for its operator. The command `criserver help`
// lists the commands.
package main

import (
	"os"

	"github.com/criserver/criserver/internal/cli"
)

//go:generate go run -tags containers_image_openpgp,nri_no_wasm . config --reference ../../docs/configuration.md
//go:generate go run -tags containers_image_openpgp,nri_no_wasm ../../hack/clidocs -markdown ../../docs/commands.md

// version is set by the linker to the output of git-describe(1).
var version string

func main() {
	os.Exit(cli.Main(version, os.Args[1:]))
}

// Package pods contains the commands that show what pods and containers have and use: namespaces, cgroups, resources,
// and the steps of the operations. All of them call the running daemon and change nothing.
package pods

import (
	"github.com/spf13/cobra"

	"github.com/criserver/criserver/internal/cli/command"
)

// Commands returns the commands of this package.
func Commands(env *command.Environment) []*cobra.Command {
	return []*cobra.Command{
		newNamespacesCommand(env),
		newCgroupCommand(env),
		newTopCommand(env),
		newTraceCommand(env),
	}
}

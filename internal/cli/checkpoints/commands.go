// Package checkpoints contains the commands that write, show and restore checkpoints. The CRI of the running daemon
// writes and restores checkpoints; the packages below checkpoint read them.
package checkpoints

import (
	"github.com/spf13/cobra"

	"github.com/criserver/criserver/internal/cli/command"
)

// Commands returns the commands of this package.
func Commands(env *command.Environment) []*cobra.Command {
	return []*cobra.Command{
		newCheckpointCommand(env),
		newRestoreCommand(env),
	}
}

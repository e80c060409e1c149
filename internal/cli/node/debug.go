package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cli/command"
)

func newDebugCommand(env *command.Environment) *cobra.Command {
	return command.NewGroup("debug", "Write profiles of the daemon's process",
		newProfileCommand(env, "goroutines", "Write the stacks of all goroutines as text", adminv1.ProfileKind_PROFILE_KIND_GOROUTINES),
		newProfileCommand(env, "heap", "Write a profile of the heap for go tool pprof", adminv1.ProfileKind_PROFILE_KIND_HEAP),
		newProfileCommand(env, "profile", "Write a CPU profile for go tool pprof", adminv1.ProfileKind_PROFILE_KIND_CPU),
	)
}

func newProfileCommand(env *command.Environment, use, short string, kind adminv1.ProfileKind) *cobra.Command {
	var file string
	var seconds uint32
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			isText := kind == adminv1.ProfileKind_PROFILE_KIND_GOROUTINES
			if file == "" && !isText && command.IsTerminal(env.Stdout) {
				return command.UsageErrorf("the profile is binary: redirect the output, or use --file")
			}
			conn, err := env.AdminConnection(cmd.Context())
			if err != nil {
				return err
			}
			req := &adminv1.GetProfileRequest{Kind: kind}
			if kind == adminv1.ProfileKind_PROFILE_KIND_CPU {
				req.Duration = durationpb.New(time.Duration(seconds) * time.Second)
			}
			stream, err := adminv1.NewDaemonClient(conn).GetProfile(cmd.Context(), req)
			if err != nil {
				return command.PlainError(err)
			}
			return writeProfile(env.Stdout, file, func() ([]byte, error) {
				r, err := stream.Recv()
				return r.GetData(), command.PlainError(err)
			})
		},
	}
	if kind == adminv1.ProfileKind_PROFILE_KIND_CPU {
		cmd.Flags().Uint32Var(&seconds, "seconds", 30, "duration of the profile as a `number` of seconds from 1 to 600")
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "write the profile to a `file` instead of the standard output")
	env.AddConnectionFlags(cmd)
	return cmd
}

// writeProfile writes the bytes that receive returns, until receive returns io.EOF, to a file
// or, if file is empty, to stdout. It creates the file only when the first bytes arrive.
func writeProfile(stdout io.Writer, file string, receive func() ([]byte, error)) error {
	w, closeFile := stdout, func() error { return nil }
	for first := true; ; first = false {
		data, err := receive()
		if errors.Is(err, io.EOF) {
			return closeFile()
		}
		if err != nil {
			return errors.Join(fmt.Errorf("receive profile: %w", err), closeFile())
		}
		if first && file != "" {
			f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
			if err != nil {
				return err
			}
			w, closeFile = f, f.Close
		}
		if _, err := w.Write(data); err != nil {
			return errors.Join(err, closeFile())
		}
	}
}

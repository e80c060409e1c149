package checkpoints

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/criserver/criserver/checkpoint/archive"
	"github.com/criserver/criserver/checkpoint/inspect"
	"github.com/criserver/criserver/internal/cli/command"
)

func newCheckpointInspectCommand(env *command.Environment) *cobra.Command {
	var out command.Output
	var keyFile string
	cmd := &cobra.Command{
		Use:   "inspect ARCHIVE|DIRECTORY",
		Short: "Show what a checkpoint contains",
		Long: `Show what the archive of a container, or the directory of a pod checkpoint, contains: the pod, the
containers, their images, the runtime, the size of each part, and what a restore needs in addition.
The digests of the files of a pod checkpoint are compared with its manifest. An archive alone has no
digest, so its digest is unknown. With --key, the command also checks the message authentication
code, which shows whether the daemon of the node has written the checkpoint.

The command reads all files, extracts nothing, and needs no daemon. The exit code is 1 if a file is
not valid.`,
		Example: `  criserver checkpoint inspect /var/lib/kubelet/checkpoints/checkpoint-web.tar
  criserver checkpoint inspect /var/tmp/pod -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var o inspect.Options
			if keyFile != "" {
				var err error
				if o.Key, err = archive.ReadKey(keyFile); err != nil {
					return fmt.Errorf("--key: %w", err)
				}
			}
			c, err := inspect.Open(cmd.Context(), args[0], o)
			if err != nil {
				return err
			}
			if err := out.Print(env.Stdout, c, func(t *command.Table) { writeCheckpoint(t, c) }); err != nil {
				return err
			}
			if !c.Valid() {
				return command.ErrReported
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&keyFile, "key", "", "`file` with the key of the daemon, checkpoint-key in its root directory")
	out.AddFlag(cmd)
	return cmd
}

func writeCheckpoint(t *command.Table, c *inspect.Checkpoint) {
	t.Line("checkpoint of a %s, %s, %s", c.Kind, command.ByteSize(size(c.Size)), plain(c.Path))
	if c.Version == 0 {
		t.Line("written by another program than criserver")
	} else {
		t.Line("version %d, written by %s at %s", c.Version, plain(c.Engine), c.CheckpointedAt.UTC().Format(time.RFC3339))
		t.Line("pod %s (%s), uid %s", plain(c.Pod.Namespace+"/"+c.Pod.Name), plain(command.ShortID(c.Pod.ID)), plain(c.Pod.UID))
		t.Line("node %s, kernel %s, cgroup v%d", plain(c.Architecture), plain(c.Kernel), cgroupVersion(c.CgroupV2))
		t.Line("runtime handler %s (%s), criu %s", plain(c.Runtime.Handler), plain(c.Runtime.Version), plain(c.CRIU))
	}
	if c.Authentic != nil {
		t.Line("message authentication code: %s", map[bool]string{true: "verified", false: "DIFFERS"}[*c.Authentic])
	}
	for _, container := range c.Containers {
		t.Line("")
		writeCheckpointContainer(t, &container)
	}
	if len(c.Files) > 0 {
		t.Line("")
		t.Row("FILE OF THE POD", "SIZE", "DIGEST", "ERROR")
		for _, f := range c.Files {
			t.Row(plain(f.Path), command.ByteSize(size(f.Size)), f.Digest, plain(f.Error))
		}
	}
	t.Line("")
	t.Line("not contained:")
	for _, text := range c.NotContained {
		t.Line("  %s", plain(text))
	}
}

func writeCheckpointContainer(t *command.Table, c *inspect.Container) {
	t.Line("container %s (%s), attempt %d", plain(c.Name), plain(command.ShortID(c.ID)), c.Attempt)
	t.Line("image %s (%s)", plain(c.ImageRef), plain(command.ShortDigest(c.ImageID)))
	if !c.CreatedAt.IsZero() {
		t.Line("created at %s", c.CreatedAt.UTC().Format(time.RFC3339))
	}
	if len(c.Args) > 0 {
		t.Line("command %s", plain(strings.Join(c.Args, " ")))
	}
	t.Line("archive %s, %s, digest %s", plain(c.Path), command.ByteSize(size(c.Size)), c.Digest)
	if c.Error != "" {
		t.Line("error: %s", plain(c.Error))
		return
	}
	t.Row("PART", "SIZE", "FILES")
	for _, p := range c.Parts {
		t.Row(p.Name, command.ByteSize(size(p.Size)), p.Files)
	}
	if c.DeletedFiles > 0 {
		t.Line("%d files of the image are deleted", c.DeletedFiles)
	}
}

func cgroupVersion(v2 bool) int {
	if v2 {
		return 2
	}
	return 1
}

// size returns a size that is not negative.
func size(n int64) uint64 { return uint64(max(0, n)) } //nolint:gosec // not negative

// maxText is the maximum length in bytes of a text of a checkpoint in a table.
const maxText = 500

// plain returns a text of a checkpoint, which is not trusted, without control characters and with a limited length. An
// empty text becomes "-".
func plain(text string) string {
	if len(text) > maxText {
		text = text[:maxText] + "..."
	}
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
	if strings.TrimSpace(text) == "" {
		return "-"
	}
	return text
}

package checkpoints

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/internal/cli/command"
)

// checkpointOptions are the flags of the command checkpoint.
type checkpointOptions struct {
	destination string
	timeout     time.Duration
}

// maxCheckpoint is the longest timeout of a checkpoint.
const maxCheckpoint = 24 * time.Hour

func newCheckpointCommand(env *command.Environment) *cobra.Command {
	o := checkpointOptions{timeout: 10 * time.Minute}
	cmd := &cobra.Command{
		Use:   "checkpoint CONTAINER|POD",
		Short: "Write a checkpoint of a container or a pod",
		Long: `Write the memory and the changed files of a running container to an archive, or of all running
containers of a pod to a directory, and print the path. The containers are frozen during the
checkpoint and continue to run afterwards. On a terminal, show how much has been written.

CONTAINER is the ID of a container, the beginning of the ID, or NAMESPACE/POD/NAME. POD is the ID of
a pod, the beginning of the ID, or NAMESPACE/NAME.

A checkpoint contains the memory of the processes, and so their secrets: only root can read it. An
existing archive is replaced. An existing directory must be empty.`,
		Example: `  criserver checkpoint default/web/nginx --export /var/tmp/nginx.tar
  criserver checkpoint default/web -o /var/tmp/web --timeout 1m
  criserver checkpoint inspect /var/tmp/web`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.timeout < time.Second || o.timeout > maxCheckpoint {
				return command.UsageErrorf("--timeout: must be from 1s to %s, is %s", maxCheckpoint, o.timeout)
			}
			client, err := env.RuntimeClient(cmd.Context())
			if err != nil {
				return err
			}
			path, err := o.run(cmd.Context(), env, client, args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(env.Stdout, path)
			return err
		},
	}
	cmd.Flags().StringVarP(&o.destination, "export", "o", "", "`path` of the archive, or of the directory of a pod (default: a new file or directory in the current directory)")
	cmd.Flags().DurationVar(&o.timeout, "timeout", o.timeout, "`time` after which the daemon ends the checkpoint, at most 24h")
	env.AddConnectionFlags(cmd)
	cmd.AddCommand(newCheckpointInspectCommand(env))
	return cmd
}

// run writes the checkpoint of the object that reference names, and returns the path.
func (o *checkpointOptions) run(ctx context.Context, env *command.Environment, client cri.RuntimeServiceClient, reference string) (string, error) {
	t, err := findTarget(ctx, client, reference)
	if err != nil {
		return "", err
	}
	path := o.destination
	if path == "" {
		path = t.fileName(time.Now())
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", err
	}
	if t.container == nil {
		return path, o.writePod(ctx, env, client, t.pod, path)
	}
	return path, o.writeContainer(ctx, env, client, t.container, path)
}

func (o *checkpointOptions) writeContainer(ctx context.Context, env *command.Environment, client cri.RuntimeServiceClient, c *cri.Container, path string) error {
	// The daemon ends the checkpoint and cleans up before the deadline of the call.
	ctx, cancel := context.WithTimeout(ctx, o.timeout+time.Minute)
	defer cancel()
	defer watchCheckpoint(env.Stderr, newArchiveSize(path))()
	_, err := client.CheckpointContainer(ctx, &cri.CheckpointContainerRequest{
		ContainerId: c.GetId(), Location: path, Timeout: int64((o.timeout + time.Second - 1) / time.Second),
	})
	return err
}

func (o *checkpointOptions) writePod(ctx context.Context, env *command.Environment, client cri.RuntimeServiceClient, p *cri.PodSandbox, path string) (err error) {
	r, err := client.ListContainers(ctx, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{
		PodSandboxId: p.GetId(), State: &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING},
	}})
	if err != nil {
		return err
	}
	var running []string
	for _, c := range r.GetContainers() {
		running = append(running, c.GetId())
	}
	if len(running) == 0 {
		return fmt.Errorf("checkpoint pod %q: no container of the pod runs", command.ShortID(p.GetId()))
	}
	err = os.Mkdir(path, 0o700)
	if made := err == nil; made {
		defer func() {
			if err != nil {
				_ = os.Remove(path) // fails if the daemon still removes its files
			}
		}()
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	defer watchCheckpoint(env.Stderr, func() int64 { return treeSize(path) })()
	_, err = client.CheckpointPod(ctx, &cri.CheckpointPodRequest{PodSandboxId: p.GetId(), OutputPath: path, ContainerIds: running})
	return err
}

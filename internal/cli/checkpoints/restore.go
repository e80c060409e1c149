package checkpoints

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/checkpoint/archive"
	"github.com/criserver/criserver/checkpoint/request"
	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/internal/cli/command"
)

// restoreOptions are the flags of the command restore.
type restoreOptions struct {
	pod              string // reference of the pod for an archive
	name, uid        string
	podConfig        string   // file
	containerConfigs []string // files
	keyFile          string
	noStart          bool
	timeout          time.Duration
}

func newRestoreCommand(env *command.Environment) *cobra.Command {
	o := restoreOptions{timeout: 10 * time.Minute}
	var out command.Output
	cmd := &cobra.Command{
		Use:   "restore DIRECTORY|ARCHIVE",
		Short: "Restore a pod or a container from a checkpoint",
		Long: `Restore a pod from the directory of a pod checkpoint, or restore a container in a running pod from the
archive of a container, start the containers, and print the IDs. The processes continue where the
checkpoint was made. The checkpoint is only read, and can be restored again. If a start fails, the
command removes what it has restored.

The configs of the pod and its containers come from the checkpoint. The command verifies that the
daemon of this node has written the checkpoint, with the key in the root directory of the daemon,
which only root can read. The addresses of the pod are new. --pod-config and --container-config
replace configs, for example if a volume has another path now.

A pod needs a name, a namespace and a UID that no other pod has. --name and --uid change the name and
the UID, so that the new pod runs next to the original. The labels of the kubelet and the directory of
the logs change too.

To restore an archive, the daemon needs the configuration checkpoint.restore_from_archives. POD is the
ID of a pod, the beginning of the ID, or NAMESPACE/NAME. If a container with the same name runs in the
pod, --name gives the new container another name.

A kubelet removes pods that the API server has not assigned to the node, including restored pods.`,
		Example: `  criserver checkpoint default/web -o /var/tmp/web
  criserver restore /var/tmp/web
  criserver restore /var/tmp/web --name web-copy
  criserver restore /var/tmp/nginx.tar --pod default/web --name nginx-copy`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := o.run(cmd.Context(), env, args[0])
			if err != nil {
				return err
			}
			return out.Print(env.Stdout, r, func(t *command.Table) { writeRestored(t, r) })
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&o.pod, "pod", "", "restore the container of an archive in this `pod`")
	fs.StringVar(&o.name, "name", "", "`name` of the new pod, or of the new container in a pod (default: the name in the checkpoint)")
	fs.StringVar(&o.uid, "uid", "", "`UID` of the new pod (default: the UID in the checkpoint, or with --name a random UID)")
	fs.StringVar(&o.podConfig, "pod-config", "", "`file` with the config of the pod, a PodSandboxConfig of the CRI as JSON or YAML")
	fs.StringArrayVar(&o.containerConfigs, "container-config", nil, "`file` with the config of a container, a ContainerConfig of the CRI as JSON or YAML; can be repeated")
	fs.StringVar(&o.keyFile, "key", "", "`file` with the key of the daemon (default: checkpoint-key in the root directory in the configuration)")
	fs.BoolVar(&o.noStart, "no-start", false, "create the containers, but do not start them")
	fs.DurationVar(&o.timeout, "timeout", o.timeout, "`time` after which the creation of the pod or container ends, at most 24h; the same for each start")
	out.AddFlag(cmd)
	env.AddConnectionFlags(cmd)
	return cmd
}

// restored is the result of the command restore. The names in JSON are part of the interface of the command.
type restored struct {
	PodSandboxID string              `json:"podSandboxId"`
	Namespace    string              `json:"namespace"`
	Pod          string              `json:"pod"`
	Containers   []restoredContainer `json:"containers"`
}

// restoredContainer is a container of the result.
type restoredContainer struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	State string `json:"state"` // "created" or "running"
}

// writeRestored writes the table of the result.
func writeRestored(t *command.Table, r *restored) {
	t.Row("KIND", "ID", "NAME", "STATE")
	t.Row("pod", command.ShortID(r.PodSandboxID), r.Namespace+"/"+r.Pod, "ready")
	for _, c := range r.Containers {
		t.Row("container", command.ShortID(c.ID), c.Name, c.State)
	}
}

// run restores the checkpoint at a path.
func (o *restoreOptions) run(ctx context.Context, env *command.Environment, path string) (*restored, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if err := o.check(info.IsDir()); err != nil {
		return nil, command.UsageErrorf("%w", err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	key, err := o.key(env)
	if err != nil {
		return nil, err
	}
	configs, err := o.readContainerConfigs()
	if err != nil {
		return nil, err
	}
	client, err := env.RuntimeClient(ctx)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return o.restorePod(ctx, client, request.PodOptions{Dir: path, Key: key, Containers: configs, Name: o.name, UID: o.uid})
	}
	archived := request.ContainerOptions{Path: path, Key: key, Name: o.name}
	if len(configs) > 0 {
		archived.Config = configs[0]
	}
	return o.restoreContainer(ctx, client, archived)
}

// check checks the flags for the directory of a pod checkpoint, or for an archive.
func (o *restoreOptions) check(isDir bool) error {
	switch {
	case o.timeout < time.Second || o.timeout > maxCheckpoint:
		return fmt.Errorf("--timeout: must be from 1s to %s, is %s", maxCheckpoint, o.timeout)
	case isDir && o.pod != "":
		return errors.New("--pod: only for the archive of a container; a directory is restored as a new pod")
	case isDir:
		return nil
	case o.pod == "":
		return errors.New("--pod must be given: the archive of a container is restored in a running pod")
	case o.uid != "" || o.podConfig != "":
		return errors.New("--uid and --pod-config: only for the directory of a pod checkpoint")
	case len(o.containerConfigs) > 1:
		return errors.New("--container-config: an archive has one container")
	}
	return nil
}

// key returns the key with which the daemon signs checkpoints.
func (o *restoreOptions) key(env *command.Environment) (archive.Key, error) {
	file := o.keyFile
	if file == "" {
		cfg, err := config.Load(config.Source{File: env.ConfigFile})
		if err != nil {
			return nil, fmt.Errorf("find the key of checkpoints: %w", err)
		}
		file = filepath.Join(cfg.Root, archive.KeyFile)
	}
	return archive.ReadKey(file)
}

// readContainerConfigs reads the files of the flag --container-config.
func (o *restoreOptions) readContainerConfigs() (list []*cri.ContainerConfig, err error) {
	for _, file := range o.containerConfigs {
		c, err := request.ReadContainerConfig(file)
		if err != nil {
			return nil, fmt.Errorf("--container-config: %w", err)
		}
		list = append(list, c)
	}
	return list, nil
}

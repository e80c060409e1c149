package images

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unsafe"

	"github.com/spf13/cobra"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/docker/config"
	"go.podman.io/image/v5/types"
	"golang.org/x/term"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cli/command"
)

// pullOptions are the flags of the command pull.
type pullOptions struct {
	creds    string
	authFile string
}

func newPullCommand(env *command.Environment) *cobra.Command {
	var o pullOptions
	cmd := &cobra.Command{
		Use:   "pull IMAGE",
		Short: "Pull an image",
		Long: `Pull an image like the kubelet, with the mirrors, the signature policy and the rules for short
names of the daemon, and print its id. On a terminal, show the progress of each layer.

Without --creds and --authfile, the daemon uses the credentials of its own auth files. A password
in --creds is hidden from the list of processes, but the shell may store it in its history.`,
		Example: `  criserver pull registry.example/app:1 --creds alice
  criserver pull registry.example/app:1 --authfile ~/.docker/config.json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			image := strings.Clone(args[0]) // hideCreds changes the arguments
			credential, err := o.credential(env, image)
			if err != nil {
				return err
			}
			conn, err := env.AdminConnection(cmd.Context())
			if err != nil {
				return err
			}
			stream, err := adminv1.NewImagesClient(conn).PullImage(cmd.Context(), &adminv1.PullImageRequest{Name: image, Credential: credential})
			if err != nil {
				return command.PlainError(err)
			}
			id, err := showPull(stream.Recv, newProgressDisplay(env.Stderr))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(env.Stdout, id)
			return err
		},
	}
	cmd.Flags().StringVar(&o.creds, "creds", "", "`USER[:PASSWORD]` for the registry; without a password, the command asks for it")
	cmd.Flags().StringVar(&o.authFile, "authfile", "", "auth `file` with the credential, as podman and docker write it")
	cmd.MarkFlagsMutuallyExclusive("creds", "authfile")
	env.AddConnectionFlags(cmd)
	return cmd
}

// progressDisplay shows the progress of a pull.
type progressDisplay interface {
	show(p *adminv1.PullProgress)
	// finish ends the display. It must be called once.
	finish()
}

// showPull shows the progress of a pull, whose messages recv returns, and returns the id of the image.
func showPull(recv func() (*adminv1.PullImageResponse, error), display progressDisplay) (id string, err error) {
	defer display.finish()
	for {
		r, err := recv()
		if errors.Is(err, io.EOF) && id != "" {
			return id, nil
		}
		if err != nil {
			return "", command.PlainError(err)
		}
		if p := r.GetProgress(); p != nil {
			display.show(p)
		}
		id = r.GetId()
	}
}

// credential returns the credential for an image, or nil if the flags set none.
func (o *pullOptions) credential(env *command.Environment, image string) (*adminv1.PullCredential, error) {
	switch {
	case o.creds != "":
		user, password, ok := strings.Cut(strings.Clone(o.creds), ":")
		if ok {
			hideCreds(o.creds)
		}
		if user == "" {
			return nil, command.UsageErrorf("--creds: the user must not be empty")
		}
		if !ok {
			var err error
			if password, err = askPassword(env, user); err != nil {
				return nil, err
			}
		}
		return &adminv1.PullCredential{Username: user, Password: password}, nil
	case o.authFile != "":
		return credentialFromFile(o.authFile, image)
	}
	return nil, nil
}

// askPassword reads a password from the terminal without an echo.
func askPassword(env *command.Environment, user string) (string, error) {
	f, ok := env.Stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return "", command.UsageErrorf("--creds: has no password, and the standard input is not a terminal")
	}
	fmt.Fprintf(env.Stderr, "Password of %s: ", user)
	b, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(env.Stderr)
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	return string(b), nil
}

// credentialFromFile returns the credential that an auth file has for an image. The name must have a
// registry, because only the daemon knows which registries a short name can stand for.
func credentialFromFile(file, image string) (*adminv1.PullCredential, error) {
	if _, err := os.Stat(file); err != nil {
		return nil, fmt.Errorf("--authfile: %w", err)
	}
	name, err := reference.ParseNamed(image)
	if err != nil {
		return nil, command.UsageErrorf("--authfile: the image name %q must have a registry", image)
	}
	found, err := config.GetCredentialsForRef(&types.SystemContext{AuthFilePath: file}, name)
	if err != nil {
		return nil, fmt.Errorf("--authfile: read credential for %s: %w", name.Name(), err)
	}
	if found == (types.DockerAuthConfig{}) {
		return nil, fmt.Errorf("--authfile: %s has no credential for %s", file, name.Name())
	}
	return &adminv1.PullCredential{
		Username: found.Username, Password: found.Password, IdentityToken: found.IdentityToken, Server: reference.Domain(name),
	}, nil
}

// hideCreds overwrites the value of --creds in the arguments of the process, so that /proc and ps(1) do
// not show the password. The caller must have a copy.
func hideCreds(value string) {
	for _, arg := range os.Args {
		if arg != value && arg != "--creds="+value {
			continue
		}
		// The strings in os.Args are the memory that the kernel shows in /proc/PID/cmdline.
		b := unsafe.Slice(unsafe.StringData(arg), len(arg)) //nolint:gosec // see above
		for i := len(arg) - len(value); i < len(arg); i++ {
			b[i] = 'x'
		}
	}
}

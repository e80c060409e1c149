package containerspec

import (
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Command is the requested command. An empty field stands for the field of the image.
type Command struct {
	Command, Args []string
	// WorkingDir is absolute and clean, or "".
	WorkingDir string
	Env        []EnvVar
}

// EnvVar is an environment variable.
type EnvVar struct{ Name, Value string }

// Stdio is how the first process uses its standard streams.
type Stdio struct {
	Terminal, Stdin bool
	// StdinOnce closes stdin after the first attached client has ended its input.
	StdinOnce bool
}

// command checks what execve(2) requires, that strings contain no NUL, and what an OCI
// config requires, that the environment is UTF-8.
func (p *parser) command() error {
	c := p.Config
	for _, field := range []struct {
		name string
		list []string
	}{{"command", c.GetCommand()}, {"args", c.GetArgs()}} {
		if i := slices.IndexFunc(field.list, func(s string) bool { return strings.ContainsRune(s, 0) }); i >= 0 {
			return invalid("config.%s[%d] %q must not contain a NUL", field.name, i, field.list[i])
		}
	}
	cmd := Command{Command: c.GetCommand(), Args: c.GetArgs()}
	if dir := c.GetWorkingDir(); dir != "" {
		if !path.IsAbs(dir) || strings.ContainsRune(dir, 0) {
			return invalid("config.working_dir %q must be an absolute path", dir)
		}
		cmd.WorkingDir = path.Clean(dir)
	}
	env, err := parseEnv(c.GetEnvs())
	if err != nil {
		return err
	}
	cmd.Env = env
	p.spec.Command = cmd
	p.spec.Stdio = Stdio{Terminal: c.GetTty(), Stdin: c.GetStdin(), StdinOnce: c.GetStdinOnce()}
	return nil
}

func parseEnv(list []*cri.KeyValue) ([]EnvVar, error) {
	env := make([]EnvVar, len(list))
	for i, kv := range list {
		name, value := kv.GetKey(), string(kv.GetValue())
		switch {
		case name == "":
			return nil, invalid("config.envs[%d].key is empty", i)
		case strings.ContainsAny(name, "=\x00"):
			return nil, invalid("config.envs[%d].key %q must not contain '=' or NUL", i, name)
		case strings.ContainsRune(value, 0):
			return nil, invalid("config.envs[%d].value of %q must not contain a NUL", i, name)
		case !utf8.ValidString(name), !utf8.ValidString(value):
			// The OCI config is JSON, which would silently replace the bytes.
			return nil, invalid("config.envs[%d]: env %q must be UTF-8", i, name)
		}
		env[i] = EnvVar{name, value}
	}
	return env, nil
}

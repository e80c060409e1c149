package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/internal/cli/command"
)

// runCommand runs a command line and returns its exit code and its output.
func runCommand(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	env := &command.Environment{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errOut, Version: "1.2.3"}
	code = command.Run(t.Context(), env, newRootCommand(env), args)
	return code, out.String(), errOut.String()
}

func TestRunCommands(t *testing.T) {
	file := filepath.Join(t.TempDir(), "criserver.toml")
	if err := os.WriteFile(file, []byte("log_level = \"debug\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args []string
		want []string // parts of the output
	}{
		{[]string{"version", "--client"}, []string{"criserver 1.2.3 (go"}},
		{[]string{"version", "--admin-socket", file}, []string{"criserver 1.2.3 (go"}},
		{[]string{"version", "--client", "-o", "json"}, []string{`"version": "1.2.3"`}},
		{[]string{"version", "--client", "-o", "yaml"}, []string{"client:\n", "  version: 1.2.3\n"}},
		{[]string{"config", "--config", file, "--image.max-layers", "7"}, []string{"log_level = \"debug\"", "max_layers = 7"}},
		{[]string{"config", "--config", file, "--selinux", "false"}, []string{"selinux = false"}},
		{[]string{"config", "--default", "--config", file}, []string{"\n#log_level = \"info\"\n", "\n[image]\n"}},
		{[]string{"config", "validate", file}, []string{"valid"}},
		{[]string{"debug"}, []string{"goroutines", "heap", "profile"}},
	} {
		code, stdout, stderr := runCommand(t, tc.args...)
		if code != command.ExitSuccess || stderr != "" {
			t.Errorf("%q: got exit code %d, error output %q", tc.args, code, stderr)
		}
		for _, want := range tc.want {
			if !strings.Contains(stdout, want) {
				t.Errorf("%q: the output does not contain %q:\n%s", tc.args, want, stdout)
			}
		}
	}
}

// TestHelpListsFlags checks that the help describes the flag of each configuration key.
func TestHelpListsFlags(t *testing.T) {
	for _, args := range [][]string{{"help"}, {"--help"}, {"serve", "-h"}, {"config", "-h"}, {"check", "-h"}} {
		code, stdout, _ := runCommand(t, args...)
		if code != command.ExitSuccess {
			t.Errorf("%q: got exit code %d", args, code)
		}
		for _, key := range config.Keys() {
			if !strings.Contains(stdout, "--"+config.FlagName(key)+" ") {
				t.Errorf("%q: the help does not contain the flag of %s", args, key)
			}
		}
	}
}

func TestRunErrors(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing")
	bad := filepath.Join(dir, "bad.toml")
	if err := os.WriteFile(bad, []byte("root = \"x\"\nlog_level = \"loud\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"start"}, command.ExitUsage, `unknown command "start"`},
		{[]string{"config", "x"}, command.ExitUsage, `unknown command "x"`},
		{[]string{"debug", "x"}, command.ExitUsage, `unknown command "x"`},
		{[]string{"serve", "x"}, command.ExitUsage, `unknown command "x"`},
		{[]string{"--repair"}, command.ExitUsage, "unknown flag: --repair"},
		{[]string{"config", "--default", "--reference", missing}, command.ExitUsage, "none of the others can be"},
		{[]string{"config", "validate", missing}, command.ExitFailure, missing},
		{[]string{"config", "validate", bad}, command.ExitFailure, "root: must be"},
		{[]string{"config", "validate", bad}, command.ExitFailure, "log_level: must be one of"},
		{[]string{"version", "-o", "xml"}, command.ExitUsage, "must be table, json or yaml"},
		{[]string{"log-level", "info", "debug"}, command.ExitUsage, "accepts at most 1 arg"},
		{[]string{"config", "--config", missing}, command.ExitFailure, missing},
		{[]string{"config", "--log-level", "loud"}, command.ExitFailure, "--log-level: log_level: must be one of"},
		{[]string{"status", "--admin-socket", missing}, command.ExitFailure, "the daemon does not run"},
		{[]string{"reload", "--config", missing}, command.ExitFailure, "find the sockets of the daemon"},
	} {
		code, stdout, stderr := runCommand(t, tc.args...)
		if code != tc.code || stdout != "" || !strings.HasPrefix(stderr, "criserver: ") || !strings.Contains(stderr, tc.want) {
			t.Errorf("%q: got exit code %d, output %q, error output %q; want exit code %d and an error that contains %q",
				tc.args, code, stdout, stderr, tc.code, tc.want)
		}
	}
}

// Package clitest helps to test the packages of commands: it runs a command line, and serves the administration API.
// Only tests import it.
package clitest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"

	"github.com/criserver/criserver/internal/cli/command"
	"github.com/criserver/criserver/server/admin"
)

// Run runs a command line whose command is one of commands, with a standard input, and returns its exit code and
// its output.
func Run(t *testing.T, commands func(*command.Environment) []*cobra.Command, stdin io.Reader, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	env := &command.Environment{Stdin: stdin, Stdout: &out, Stderr: &errOut, Version: "1.2.3"}
	root := &cobra.Command{Use: "criserver"}
	root.AddCommand(commands(env)...)
	command.SetUp(env, root)
	code = command.Run(t.Context(), env, root, args)
	return code, out.String(), errOut.String()
}

// Table returns what write writes.
func Table(t *testing.T, write func(*command.Table)) string {
	t.Helper()
	var b bytes.Buffer
	tab := command.NewTable(&b)
	write(tab)
	if err := tab.Flush(); err != nil {
		t.Fatalf("write the table: %v", err)
	}
	return b.String()
}

// ServeAdmin serves the administration API, and returns the path of a configuration file that
// names its socket.
func ServeAdmin(t *testing.T, cfg admin.Config) (file string) {
	t.Helper()
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- admin.New(cfg).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	file = filepath.Join(dir, "criserver.toml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "admin_socket = %q\n", socket), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

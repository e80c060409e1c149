package main

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/criserver/criserver/config"
)

func TestRunCommands(t *testing.T) {
	file := filepath.Join(t.TempDir(), "criserver.toml")
	if err := os.WriteFile(file, []byte("log_level = \"debug\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args []string
		want []string // parts of the output
	}{
		{[]string{"version"}, []string{"criserver " + semanticVersion()}},
		{[]string{"config", "--config", file, "--image.max-layers", "7"}, []string{"log_level = \"debug\"", "max_layers = 7"}},
		{[]string{"config", "--default", "--config", file}, []string{"\n#log_level = \"info\"\n", "\n[image]\n"}},
	} {
		var out bytes.Buffer
		if err := run(t.Context(), tc.args, &out); err != nil {
			t.Errorf("%q: got %v", tc.args, err)
		}
		for _, want := range tc.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q: the output does not contain %q", tc.args, want)
			}
		}
	}
}

// TestHelpListsFlags checks that the help describes the flag of each configuration key.
func TestHelpListsFlags(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"help"}, &out); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("got %v, want flag.ErrHelp", err)
	}
	for _, key := range config.Keys() {
		if !strings.Contains(out.String(), "--"+config.FlagName(key)+"\n") {
			t.Errorf("the help does not contain the flag of %s", key)
		}
	}
}

func TestRunErrors(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.toml")
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"start"}, `unknown command "start"`},
		{[]string{"config", "x"}, `unexpected argument "x"`},
		{[]string{"--repair"}, "flag provided but not defined"},
		{[]string{"config", "--config", missing}, missing},
		{[]string{"config", "--log-level", "loud"}, "--log-level: log_level: must be one of"},
	} {
		var out bytes.Buffer
		if err := run(t.Context(), tc.args, &out); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: got %v, want an error that contains %q", tc.args, err, tc.want)
		}
	}
}

// Command criserver is the daemon. It serves the Kubernetes Container Runtime Interface (CRI)
// on a unix socket. The command `criserver help` lists the subcommands.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/internal/daemon"
)

//go:generate go run -tags containers_image_openpgp,nri_no_wasm . config --reference ../../docs/configuration.md

const usage = `criserver serves the Kubernetes Container Runtime Interface (CRI) on a unix socket.

  criserver [flags]                      run the daemon
  criserver config [flags]               print the effective configuration with comments
  criserver config --default             print a configuration file that contains all keys as comments
  criserver config --reference FILE      write the reference page of all configuration keys
  criserver check [--repair] [flags]     verify the image store, and delete what is broken; the daemon must not run
  criserver version                      print the version

Flags, which take precedence over configuration files:
  --config FILE    main configuration file (` + config.DefaultFile + `); drop-in files are FILE.d/*.toml
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "criserver:", err)
		stop()
		os.Exit(1)
	}
}

// run runs the command that args contain.
func run(ctx context.Context, args []string, out io.Writer) error {
	command := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		command, args = args[0], args[1:]
	}
	switch command {
	case "", "config", "check":
	case "version":
		_, err := fmt.Fprintln(out, "criserver", semanticVersion())
		return err
	case "help":
		return newFlagSet(command, out).Parse([]string{"-h"})
	default:
		return fmt.Errorf("unknown command %q; see criserver help", command)
	}
	fs := newFlagSet(command, out)
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; see criserver help", fs.Arg(0))
	}
	if command == "config" && fs.reference != "" {
		return writeReference(fs.reference)
	}
	if command == "config" && fs.defaults {
		return config.PrintDefault(out)
	}
	cfg, err := config.Load(config.Source{File: fs.file, Flags: fs.values})
	if err != nil {
		return err
	}
	if command == "config" {
		return cfg.Print(out)
	}
	unix.Umask(umask)
	if command == "check" {
		// The report lists the problems, so the log shows only warnings.
		cfg.LogLevel = "warning"
	}
	if err := daemon.ConfigureLogging(cfg); err != nil {
		return err
	}
	if command == "check" {
		return runCheck(ctx, cfg, fs.repair, out)
	}
	limitMemory()
	defer tolerateSignals()()
	return daemon.New(daemon.Config{Settings: cfg, Version: semanticVersion()}).Run(ctx)
}

// flagSet contains the flags of the command line. Each configuration key has a flag.
type flagSet struct {
	*flag.FlagSet
	file, reference string
	defaults        bool // print the default configuration
	repair          bool
	values          map[string]string // configuration keys that are set on the command line
}

// newFlagSet returns the flags of a command. The empty command runs the daemon.
func newFlagSet(command string, out io.Writer) *flagSet {
	fs := &flagSet{FlagSet: flag.NewFlagSet("criserver", flag.ContinueOnError), values: make(map[string]string)}
	fs.SetOutput(out)
	fs.StringVar(&fs.file, "config", "", "")
	if command == "config" {
		fs.StringVar(&fs.reference, "reference", "", "")
		fs.BoolVar(&fs.defaults, "default", false, "")
	}
	if command == "check" {
		fs.BoolVar(&fs.repair, "repair", false, "")
	}
	for _, key := range config.Keys() {
		fs.Func(config.FlagName(key), "", func(v string) error { fs.values[key] = v; return nil })
	}
	fs.Usage = func() {
		fmt.Fprint(out, usage)
		for _, key := range config.Keys() {
			fmt.Fprintf(out, "  --%s\n        %s\n", config.FlagName(key), config.Help(key))
		}
	}
	return fs
}

// writeReference writes the reference page of all configuration keys.
func writeReference(file string) error {
	f, err := os.Create(filepath.Clean(file))
	if err != nil {
		return err
	}
	return errors.Join(config.Reference(f), f.Close())
}

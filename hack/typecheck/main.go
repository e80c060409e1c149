// Command typecheck checks the Go packages in the working directory for several
// architectures of Linux, without compiling them. It reads the source of all
// dependencies, but only their declarations. That takes seconds per architecture,
// where go vet and go build first have to compile every dependency.
//
// typecheck finds the errors that a compiler finds: names that an architecture does not have,
// types that differ, and constants that overflow. It includes the tests.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

func main() {
	tags := flag.String("tags", "", "build tags, separated by commas")
	archs := flag.String("arch", "", "architectures, separated by commas")
	flag.Parse()
	// Each architecture needs some hundred megabytes while it is checked.
	var g errgroup.Group
	g.SetLimit(min(runtime.NumCPU(), 4))
	var failed atomic.Bool
	for arch := range strings.SplitSeq(*archs, ",") {
		g.Go(func() error {
			if err := checkArch(arch, *tags, flag.Args()); err != nil {
				failed.Store(true)
				fmt.Fprintln(os.Stderr, "typecheck:", err)
			}
			return nil
		})
	}
	_ = g.Wait() // the functions return no error
	if failed.Load() {
		os.Exit(1)
	}
}

func checkArch(arch, tags string, patterns []string) error {
	list, err := load(arch, tags, patterns)
	if err != nil {
		return err
	}
	if problems := check(arch, list); len(problems) > 0 {
		return fmt.Errorf("linux/%s:\n\t%s", arch, strings.Join(problems, "\n\t"))
	}
	return nil
}

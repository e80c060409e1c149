package critest

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/formatter"
	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega"
	"sigs.k8s.io/cri-tools/pkg/framework"
	_ "sigs.k8s.io/cri-tools/pkg/validate" // registers the specs

	"github.com/criserver/criserver/test/harness"
	"github.com/criserver/criserver/test/images"
)

var (
	options  Options
	variant  string
	longRuns bool
)

func TestMain(m *testing.M) {
	framework.RegisterFlags()
	flag.StringVar(&variant, "variant", "", "run only this variant; else, all of them")
	flag.BoolVar(&longRuns, "long", false, "run the long variants instead: more at a time, and again")
	flag.StringVar(&options.Focus, "focus", "", "run only the specs that match this regular expression, in the default variant if no other is named")
	flag.IntVar(&options.Procs, "procs", 1, "how many specs run at a time")
	flag.StringVar(&options.Daemon, "daemon", "", "shell command that starts another runtime in place of criserver")
	flag.BoolVar(&options.List, "list", false, "print the specs and run none of them")
	flag.Parse()

	top, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	options.Bin = filepath.Join(top, "bin")
	options.Images = filepath.Join(top, ".cache", "images")
	options.Skips = filepath.Join(top, "test", "critest", "skips.txt")
	if harness.Stage() == "inside" && os.Getenv(endpointVariable) == "" {
		if err := inside(top); err != nil {
			fmt.Fprintln(os.Stderr, "critest:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// list is which variants there are in this run.
func list() []Variant {
	if longRuns {
		return LongVariants
	}
	return Variants
}

// inside is the second stage, of one variant.
func inside(top string) (err error) {
	if options.Variant, err = find(list(), variant); err != nil {
		return err
	}
	if options.Variant.Procs > 0 {
		options.Procs = options.Variant.Procs
	}
	options.ReportDir = filepath.Join(top, "test", "critest", "report", variant)
	return Run(context.Background(), options)
}

// TestCRI is all runs, and in its third stage the suite.
func TestCRI(t *testing.T) {
	if os.Getenv(endpointVariable) != "" || options.List {
		runSpecs(t)
		return
	}
	if os.Getuid() != 0 {
		t.Fatal("a container runtime needs root")
	}
	if err := images.Build(t.Context(), options.Images, false); err != nil {
		t.Fatal(err)
	}
	if variant == "" && options.Focus != "" {
		variant = "default"
	}
	if variant != "" {
		v, err := find(list(), variant)
		if err != nil {
			t.Fatal(err)
		}
		runVariant(t, v)
		return
	}
	for _, v := range list() {
		t.Run(v.Name, func(t *testing.T) { runVariant(t, v) })
	}
}

// runVariant runs one variant as often as it says.
func runVariant(t *testing.T, v Variant) {
	for _, binary := range append([]string{"criserver", "conmon", "runc", "cni/bridge", "ginkgo"}, v.Binaries...) {
		_, err := os.Stat(filepath.Join(options.Bin, binary))
		if slices.Contains(v.Binaries, binary) {
			_, err = exec.LookPath(binary)
		}
		if err != nil && options.Daemon == "" {
			t.Fatalf("%v: run make deps tools build first", err)
		}
	}
	for i := range max(v.Repeat, 1) {
		fmt.Printf("\n=== critest, variant %s, run %d of %d: %s\n", v.Name, i+1, max(v.Repeat, 1), v.About)
		if err := harness.Isolated(append(os.Args[1:], "-variant="+v.Name)...); err != nil {
			t.Fatalf("critest, variant %s, run %d: %v", v.Name, i+1, err)
		}
	}
}

func runSpecs(t *testing.T) {
	gomega.RegisterFailHandler(ginkgo.Fail)
	framework.TestContext.RuntimeServiceAddr = os.Getenv(endpointVariable)
	suite, reporter := ginkgo.GinkgoConfiguration()
	if options.List {
		suite.DryRun, reporter.Verbose = true, true
	} else if suite.ParallelTotal == 1 {
		ginkgo.ReportAfterEach(progress)
		formatter.ColorableStdOut = withoutDots{os.Stdout}
	}
	ginkgo.RunSpecs(t, suiteName, suite, reporter)
}

// progress prints a line as each spec ends; ginkgo alone prints dots, or all that a spec has logged.
func progress(spec types.SpecReport) {
	if spec.State.Is(types.SpecStateSkipped) && spec.FailureMessage() == "" {
		return
	}
	fmt.Printf("%-8s %5.1fs  %s\n", spec.State, spec.RunTime.Round(100*time.Millisecond).Seconds(), spec.FullText())
}

// withoutDots leaves out ginkgo's own sign of progress, one character a spec.
type withoutDots struct{ io.Writer }

func (w withoutDots) Write(p []byte) (int, error) {
	switch string(p) {
	case "•", "S", "P":
		return len(p), nil
	}
	return w.Writer.Write(p)
}

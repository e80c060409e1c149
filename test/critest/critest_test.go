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
	flag.StringVar(&variant, "variant", "", "run only this variant in place of all")
	flag.BoolVar(&longRuns, "long", false, "run the long variants: more specs at a time, several times")
	flag.StringVar(&options.Focus, "focus", "", "run only the specs that match this regular expression; implies the default variant without -variant")
	flag.IntVar(&options.Procs, "procs", 1, "number of specs that run at a time")
	flag.StringVar(&options.Daemon, "daemon", "", "shell command that starts another runtime in place of criserver")
	flag.BoolVar(&options.List, "list", false, "print the specs without running them")
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

// variants returns the variants of this run.
func variants() []Variant {
	if longRuns {
		return LongVariants
	}
	return Variants
}

// inside runs the second stage of one variant.
func inside(top string) (err error) {
	if options.Variant, err = find(variants(), variant); err != nil {
		return err
	}
	if options.Variant.Procs > 0 {
		options.Procs = options.Variant.Procs
	}
	options.ReportDir = filepath.Join(top, "test", "critest", "report", variant)
	return Run(context.Background(), options)
}

// TestCRI runs all variants. In the third stage it runs the suite.
func TestCRI(t *testing.T) {
	if os.Getenv(endpointVariable) != "" || options.List {
		runSpecs(t)
		return
	}
	if os.Getuid() != 0 {
		t.Fatal("a container runtime needs root")
	}
	if err := harness.RemoveDeadRuns(dirPrefix); err != nil {
		t.Fatal(err)
	}
	if err := images.Build(t.Context(), options.Images, false); err != nil {
		t.Fatal(err)
	}
	if variant == "" && options.Focus != "" {
		variant = "default"
	}
	if variant != "" {
		v, err := find(variants(), variant)
		if err != nil {
			t.Fatal(err)
		}
		runVariant(t, v)
		return
	}
	for _, v := range variants() {
		t.Run(v.Name, func(t *testing.T) { runVariant(t, v) })
	}
}

// runVariant runs one variant v.Repeat times, and at least once.
func runVariant(t *testing.T, v Variant) {
	for _, binary := range append([]string{"criserver", "conmon", "runc", "cni/bridge", "ginkgo"}, v.Binaries...) {
		_, err := os.Stat(filepath.Join(options.Bin, binary))
		if slices.Contains(v.Binaries, binary) {
			_, err = exec.LookPath(binary)
		}
		if err != nil && options.Daemon == "" {
			t.Fatalf("%v; run make deps tools build first", err)
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
		ginkgo.ReportAfterEach(printResult)
		formatter.ColorableStdOut = withoutDots{os.Stdout}
	}
	ginkgo.RunSpecs(t, suiteName, suite, reporter)
}

// printResult prints a line at the end of each spec. ginkgo would print dots, or the complete log of a spec.
func printResult(spec types.SpecReport) {
	if spec.State.Is(types.SpecStateSkipped) && spec.FailureMessage() == "" {
		return
	}
	fmt.Printf("%-8s %5.1fs  %s\n", spec.State, spec.RunTime.Round(100*time.Millisecond).Seconds(), spec.FullText())
}

// withoutDots is a writer that drops the character that ginkgo prints for each spec.
type withoutDots struct{ io.Writer }

func (w withoutDots) Write(p []byte) (int, error) {
	switch string(p) {
	case "•", "S", "P":
		return len(p), nil
	}
	return w.Writer.Write(p)
}

package critest

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
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

var options Options

func TestMain(m *testing.M) {
	framework.RegisterFlags()
	flag.StringVar(&options.Focus, "focus", "", "run only the specs that match this regular expression")
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
	options.ReportDir = filepath.Join(top, "test", "critest", "report")

	if harness.Stage() == "inside" && os.Getenv(endpointVariable) == "" {
		if err := Run(context.Background(), options); err != nil {
			fmt.Fprintln(os.Stderr, "critest:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestCRI is the whole run, and in its third stage the suite.
func TestCRI(t *testing.T) {
	if os.Getenv(endpointVariable) != "" || options.List {
		runSpecs(t)
		return
	}
	if os.Getuid() != 0 {
		t.Skip("a container runtime needs root")
	}
	for _, binary := range []string{"criserver", "conmon", "runc", "cni/bridge", "ginkgo"} {
		if _, err := os.Stat(filepath.Join(options.Bin, binary)); err != nil && options.Daemon == "" {
			t.Fatalf("%v: run make build tools first", err)
		}
	}
	if err := images.Build(t.Context(), options.Images, false); err != nil {
		t.Fatal(err)
	}
	if err := harness.Isolated(os.Args[1:]...); err != nil {
		t.Fatalf("critest: %v", err)
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

package critest

import (
	"flag"
	"os"
	"strings"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
)

// A flag that is lost on its way, through ginkgo's command and its processes, leaves a suite that passes and has tested something else.
var _ = ginkgo.Describe("[criserver] Variant", func() {
	ginkgo.It("has the flags that it is run with", func() {
		for _, want := range strings.Fields(os.Getenv(flagsVariable)) {
			name, value, _ := strings.Cut(want, "=")
			f := flag.Lookup(name)
			gomega.Expect(f).NotTo(gomega.BeNil(), "the suite has no flag "+name)
			gomega.Expect(f.Value.String()).To(gomega.Equal(value), name)
		}
	})
})

package critest

import (
	"flag"
	"os"
	"strings"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
)

// This spec checks that the flags reach the suite through ginkgo's command and its processes. Without a flag the suite
// could pass and test another variant.
var _ = ginkgo.Describe("[criserver] Variant", func() {
	ginkgo.It("should have the flags of the run", func() {
		for _, want := range strings.Fields(os.Getenv(flagsVariable)) {
			name, value, _ := strings.Cut(want, "=")
			f := flag.Lookup(name)
			gomega.Expect(f).NotTo(gomega.BeNil(), "the suite has no flag "+name)
			gomega.Expect(f.Value.String()).To(gomega.Equal(value), name)
		}
	})
})

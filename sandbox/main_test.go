package sandbox

import (
	"io"
	"os"
	"testing"

	"github.com/criserver/criserver/internal/testns"
	"github.com/sirupsen/logrus"
)

func TestMain(m *testing.M) {
	logrus.SetOutput(io.Discard)
	if os.Getenv("CRISERVER_TEST_LOG") != "" {
		logrus.SetOutput(os.Stderr)
	}
	os.Exit(testns.Run(m))
}

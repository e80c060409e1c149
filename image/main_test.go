package image

import (
	"os"
	"testing"

	"github.com/criserver/criserver/internal/testns"
)

// TestMain runs the tests in their own mount namespace, so that no mount is left if they are killed.
func TestMain(m *testing.M) { os.Exit(testns.Run(m)) }

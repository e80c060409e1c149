package harness

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

// PatienceVariable is the environment variable of the factor of Patience.
const PatienceVariable = "CRISERVER_TEST_PATIENCE"

// patience is read once: a factor that changes during a run would hide mistakes.
var patience = readPatience(os.Getenv(PatienceVariable))

// readPatience panics on a value that is no factor, because a run with the wrong
// deadlines tells nothing.
func readPatience(value string) float64 {
	if value == "" {
		return 1
	}
	f, err := strconv.ParseFloat(value, 64)
	if err != nil || !(f >= 1 && f <= 1000) {
		panic(fmt.Sprintf("%s: %q must be a number from 1 to 1000", PatienceVariable, value))
	}
	return f
}

// Patience returns the longest time to wait for something that takes less than d
// on an idle machine. The environment variable CRISERVER_TEST_PATIENCE is the
// factor for slower machines, such as guests without hardware virtualization. It
// is for upper bounds only, and not for the time that a test lets pass on purpose.
func Patience(d time.Duration) time.Duration { return time.Duration(float64(d) * patience) }

// PatienceSeconds is Patience in the unit of the CRI.
func PatienceSeconds(seconds int64) int64 {
	return int64(Patience(time.Duration(seconds) * time.Second).Seconds())
}

package harness

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

// PatienceVariable is the environment variable of the factor of Patience.
const PatienceVariable = "CRISERVER_TEST_PATIENCE"

// patience is read once, because a factor that changes during a run would hide errors.
var patience = readPatience(os.Getenv(PatienceVariable))

// readPatience panics if the value is not a valid factor, because the results of a
// run with wrong deadlines are meaningless.
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

// Patience returns the longest time to wait for an event that takes less than d on
// an idle machine: d multiplied by CRISERVER_TEST_PATIENCE, which is more than 1 on
// slow machines such as guests without hardware virtualization. It is meant for
// upper bounds, not for pauses that a test makes on purpose.
func Patience(d time.Duration) time.Duration { return time.Duration(float64(d) * patience) }

// PatienceSeconds is Patience in seconds, the unit of the CRI.
func PatienceSeconds(seconds int64) int64 {
	return int64(Patience(time.Duration(seconds) * time.Second).Seconds())
}

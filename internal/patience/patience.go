// Package patience gives tests the longest time to wait for something. It is for
// tests only: the daemon does not import it.
package patience

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// Variable is the environment variable of the factor, a number from 1 to 1000. The
// suites that drive the daemon read the same variable.
const Variable = "CRISERVER_TEST_PATIENCE"

var factor = sync.OnceValue(func() float64 {
	value := os.Getenv(Variable)
	if value == "" {
		return 1
	}
	f, err := strconv.ParseFloat(value, 64)
	if err != nil || !(f >= 1 && f <= 1000) {
		panic(fmt.Sprintf("%s: %q must be a number from 1 to 1000", Variable, value))
	}
	return f
})

// For returns the longest time to wait for something that takes less than d on an
// idle machine. It is for upper bounds only, and not for the time that a test lets
// pass on purpose.
func For(d time.Duration) time.Duration { return time.Duration(float64(d) * factor()) }

// Until returns the time at which a wait that begins now and may take For(d) ends.
func Until(d time.Duration) time.Time { return time.Now().Add(For(d)) }

// Package patience scales the timeouts of tests, so that the tests also pass on a slow
// machine. Only tests import it.
package patience

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// Variable is the environment variable of the factor by which timeouts are multiplied,
// a number from 1 to 1000. The suites below test/ read the same variable.
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

// For returns the timeout for an event that takes less than d on an idle machine. Use
// For only for upper bounds, and not for a time that a test lets pass on purpose.
func For(d time.Duration) time.Duration { return time.Duration(float64(d) * factor()) }

// Until returns the time at which a timeout of For(d) that starts now expires.
func Until(d time.Duration) time.Time { return time.Now().Add(For(d)) }
